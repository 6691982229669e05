"""PUMaVOS: dense 30 fps masks, no official split or evaluator; scored like SA-V's single-PNG mode, as SAM2Long does."""

from __future__ import annotations

from eval.datasets import base


class PumaVos(base.Dataset):
    source = "the XMem++ project page (PUMaVOS)"
    all_prompts_first = False
    frame_step = None

    def __init__(self, **common):
        super().__init__(**common)
        nested = self.root / "PUBLIC_PUMaVOS"
        if not (self.root / "JPEGImages").is_dir() and (nested / "JPEGImages").is_dir():
            self.root = nested

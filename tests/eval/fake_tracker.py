"""Trackers without a network: the prompt's mask, drifting. Their masks depend on the frames' pixels, so a wrong frame
shows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

NO_OBJECT = -1024.0


class Drift:
    def __init__(self, spec):
        self.spec = spec
        self.delay = float(os.environ.get("FAKE_TRACKER_DELAY", "0"))

    def reset_peak_memory(self) -> None:
        pass

    def peak_memory(self) -> int:
        return 1

    def track(self, folder: Path, video, prompts):
        for t in range(min(p.frame for p in prompts), len(video.frame_names)):
            pixels = np.asarray(Image.open(folder / f"{t:05d}.jpg").convert("L"), np.float32)
            assert pixels.shape == video.size
            logits = np.full((len(prompts), *video.size), NO_OBJECT, np.float32)
            for row, p in enumerate(prompts):
                if t >= p.frame:
                    mask = np.roll(p.mask, t - p.frame, axis=1)
                    logits[row] = np.where(mask, 1 + pixels / 255, -1)
            time.sleep(self.delay)
            yield t, logits


class Breaks(Drift):
    """Fails on vid_a, after a few frames."""

    def track(self, folder, video, prompts):
        for t, logits in super().track(folder, video, prompts):
            if video.name == "vid_a" and t == 3:
                raise RuntimeError("the device is on fire")
            yield t, logits


class Dies(Drift):
    """Takes its process with it on vid_a, once: the first time it leaves a mark."""

    def track(self, folder, video, prompts):
        mark = Path(os.environ["FAKE_TRACKER_MARK"])
        for t, logits in super().track(folder, video, prompts):
            if video.name == "vid_a" and t == 3 and not mark.exists():
                mark.touch()
                os._exit(1)
            yield t, logits


def drift(spec):
    return Drift(spec)


def breaks(spec):
    return Breaks(spec)


def dies(spec):
    return Dies(spec)

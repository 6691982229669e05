"""What `init_state` returns: a session that reads like sam2's dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sam2long.tracking.session import Session


class InferenceState(Mapping):
    """What `init_state` returns. Reads like sam2's dictionary for the keys that users read; holds a session.

    Keys: num_frames, video_height, video_width, obj_ids, device, storage_device, images.
    """

    def __init__(self, session: Session, device: torch.device) -> None:
        self.session = session
        self._fixed = {
            "num_frames": session.source.num_frames,
            "video_height": session.source.height,
            "video_width": session.source.width,
            "device": device,
            "storage_device": session.storage or device,
            "images": session.source,
        }

    def __getitem__(self, key: str) -> Any:
        if key == "obj_ids":
            return list(self.session.objects)
        return self._fixed[key]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._fixed, "obj_ids"])

    def __len__(self) -> int:
        return len(self._fixed) + 1

    def __repr__(self) -> str:
        fixed = self._fixed
        size = f"{fixed['video_width']}x{fixed['video_height']}"
        return f"InferenceState({fixed['num_frames']} frames, {size}, objects {self['obj_ids']})"

    @property
    def encoder_passes(self) -> int:
        """How many frames have gone through the image encoder for this state: each frame once."""
        return self.session.model.frames_encoded

    @property
    def rows_read(self) -> int:
        """How many (object, pathway) rows have gone through memory attention and decoder."""
        return self.session.model.rows_read

"""What was tracked is drawn once more, by the network for still pictures.

A small network that tracks well draws badly: its masks have few cells, and it remembers them, so that errors grow. On
every frame nano has MobileSAM (sam2long/network/mobilesam.py) mark what the box around a tracked mask and the mask
itself say. Where the two see the same thing, their mean is handed out and remembered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sam2long.network.masks import boxes, enlarged
from sam2long.network.mobilesam import CELL, mobilesam, quick_encoder
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.window import SURE, Window

ENLARGED = 2  # a picture is enlarged at most so many times: it looks at as many pixels as the tracker, not more
ALIKE = 0.5  # IoU from which two masks are of the same thing


class Redraw:
    """Draws masks of a video's frames once more.

    Args:
        reader: of the frames.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._side = reader.model.network.image_size

    def can(self, frame: int) -> bool:
        """Whether a frame has a picture: of a stream there may be features alone."""
        return self._reader.picture(frame) is not None

    def drawn(self, frame: int, view: Window | None, masks: Tensor) -> Tensor:
        """Masks of a frame that `can` be drawn: the better ones, or the same where the two do not agree.

        Args:
            view: the part of the picture that the objects are tracked in, and looked at again; None: all of it.
            masks: [N, 1, h, h] logits, of `view`.
        Returns:
            [N, 1, h, h] logits.
        """
        picture = self._reader.picture(frame)
        assert picture is not None
        if view is not None:
            picture = picture[view.slices]
        network, side = mobilesam(masks.device), masks.shape[-1]
        shorter, longer = sorted(picture.shape[:2])
        longest = round(min(self._side * (longer / shorter) ** 0.5, ENLARGED * longer))
        # In half precision all that runs is quick already, and has that precision.
        encoder = quick_encoder(masks.device) if self._reader.model.dtype == torch.float32 else None
        seen = network.see(picture, longest, encoder)
        across, down = seen.width / side, seen.height / side
        left, top, right, bottom = boxes(masks[:, 0]).unbind(1)
        corners = torch.stack([left * across, top * down, right * across, bottom * down], 1)
        before = enlarged(masks, seen.height // CELL, seen.width // CELL).clamp(-SURE, SURE)
        found, _ = network.mark(seen, boxes=corners, previous=before)
        found = enlarged(found, side, side)
        shared, either = (marked.flatten(1).sum(1) for marked in ((found > 0) & (masks > 0), (found > 0) | (masks > 0)))
        alike = (shared > ALIKE * either)[:, None, None, None]
        return torch.where(alike, (masks.clamp(-SURE, SURE) + found.clamp(-SURE, SURE)) / 2, masks)

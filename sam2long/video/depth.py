"""Values of 16 bits to 8, in one way for all frames of a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SAMPLED = 9  # frames that are looked at, evenly spread
WIDE = 1 << 15  # values that span this much or more are taken as they are
DTYPES = ("uint16", "int16")


@dataclass(frozen=True, slots=True)
class Depth:
    """Which values become black and white.

    Where the sampled frames use half of the 16 bits or more, the upper 8 bits are taken. Otherwise (12 bits of a
    camera, 33000 to 37000 of a microscope) their lowest value becomes 0 and their highest 255.
    """

    low: int
    high: int
    stretched: bool

    @classmethod
    def sample(cls, count: int, read: Callable[[int], np.ndarray]) -> Depth:
        """Look at some frames.

        Args:
            count: how many frames there are, 1 or more. read: number -> frame of 16 bits.
        """
        frames = [read(int(at)) for at in np.unique(np.linspace(0, count - 1, SAMPLED).round())]
        low, high = min(int(frame.min()) for frame in frames), max(int(frame.max()) for frame in frames)
        if 0 < high - low < WIDE:
            return cls(low, high, True)
        full = np.iinfo(frames[0].dtype)
        return cls(int(full.min), int(full.max), False)

    def to_rgb(self, frame: np.ndarray) -> np.ndarray:
        """[H, W] or [H, W, 3] of 16 bits -> [H, W, 3] uint8."""
        values = (np.clip(frame.astype(np.int32), self.low, self.high) - self.low) * 256 // (self.high - self.low + 1)
        return grey_to_rgb(values.astype(np.uint8))

    def notes(self) -> list[str]:
        if not self.stretched:
            return []
        return [f"the 16-bit values {self.low} to {self.high} were stretched to 0 to 255"]


def grey_to_rgb(frame: np.ndarray) -> np.ndarray:
    """[H, W] -> [H, W, 3]; what has three channels is left as it is."""
    return np.repeat(frame[:, :, None], 3, axis=2) if frame.ndim == 2 else frame

"""Logits to the official PNGs, written so that a killed run leaves whole videos or nothing."""

from __future__ import annotations

import io
import os
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from eval.datasets.base import Prompt, Video
from sam2long.export.pngs import davis_palette

MOST_WAITING = 8  # frames that the thread may be behind: logits of a 4K frame take 33 MB an object
PALETTE = davis_palette()
SCORE_ABOVE = 0.0  # a pixel is the object above this logit


def to_ids(logits: np.ndarray, prompts: list[Prompt]) -> np.ndarray:
    """[N, H, W] logits -> [H, W] uint8: each pixel goes to the object with the highest logit, if that is above 0.

    Equal logits go to the lowest id. This is sam2's non-overlap rule followed by its writing order."""
    best, ids = np.full(logits.shape[1:], SCORE_ABOVE, logits.dtype), np.zeros(logits.shape[1:], np.uint8)
    for row in sorted(range(len(prompts)), key=lambda row: prompts[row].obj):  # several times faster than argmax
        ahead = logits[row] > best
        ids[ahead] = prompts[row].obj
        np.copyto(best, logits[row], where=ahead)
    return ids


def png_bytes(ids: np.ndarray) -> bytes:
    """An 8-bit palette PNG with DAVIS's colours."""
    image = Image.frombytes("P", ids.shape[::-1], np.ascontiguousarray(ids).tobytes())
    image.putpalette(PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class VideoWriter:
    """The masks of one video: written beside their place, moved there when complete.

    per_object False: <video>/<frame>.png, an id map. True: <video>/<object>/<frame>.png, masks may overlap.
    Frames that no one wrote (before the first prompt) become empty masks. `write` leaves encoding to a thread of its
    own, so that the tracker need not wait for it; what goes wrong there is raised by a later `write` or by `close`.
    """

    def __init__(self, root: Path, video: Video, prompts: list[Prompt], per_object: bool):
        self.video, self.prompts, self.per_object = video, prompts, per_object
        self.final, self.part = root / video.name, root / f".{video.name}.part"
        if self.part.exists():
            shutil.rmtree(self.part)
        for folder in self._folders():
            folder.mkdir(parents=True)
        self._left = set(video.saved)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eval-masks")
        self._waiting: deque[Future] = deque()

    def _folders(self) -> list[Path]:
        return [self.part / p.label for p in self.prompts] if self.per_object else [self.part]

    def write(self, frame: int, logits: np.ndarray) -> None:
        """Take a frame's logits, [N, H, W]; they must not be changed afterwards."""
        if frame in self._left:
            self._waiting.append(self._thread.submit(lambda: self.put(frame, self.encode(logits))))
        self._settle(MOST_WAITING)

    def _settle(self, most: int) -> None:
        """Wait until at most so many frames are left to be encoded."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def encode(self, logits: np.ndarray) -> list[bytes]:
        """The PNGs of a frame, one for each folder."""
        if self.per_object:
            return [png_bytes(mask.astype(np.uint8)) for mask in logits > SCORE_ABOVE]
        return [png_bytes(to_ids(logits, self.prompts))]

    def put(self, frame: int, encoded: list[bytes]) -> None:
        if frame not in self._left:
            return
        self._left.remove(frame)
        name = f"{self.video.frame_names[frame]}.png"
        for folder, png in zip(self._folders(), encoded, strict=True):
            (folder / name).write_bytes(png)

    def close(self) -> None:
        """Fill in frames before the first prompt and put the folder in its place."""
        self._settle(0)
        self._thread.shutdown()
        empty = png_bytes(np.zeros(self.video.size, np.uint8))
        for frame in self._left:
            for folder in self._folders():
                (folder / f"{self.video.frame_names[frame]}.png").write_bytes(empty)
        if self.final.exists():  # an earlier try that was killed between the move and its record
            shutil.rmtree(self.final)
        os.replace(self.part, self.final)

    def abandon(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        shutil.rmtree(self.part, ignore_errors=True)

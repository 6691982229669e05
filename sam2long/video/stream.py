"""Sources that can only go forward, once: iterators."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.arrays import check_same_size
from sam2long.video.model_input import check_image
from sam2long.video.source import FrameSource, Selection


class StreamSource(FrameSource):
    """Frames that come one after the other and are gone then. Only the first can be looked at in advance.

    Args:
        frames: yields images [H, W, 3] uint8, or (image, seconds) pairs; read as they are needed.
        name: for messages.
        fps: when it is known.
    """

    def __init__(
        self, frames: Iterable, selection: Selection, prefetch: int, *, name: str, fps: float | None = None
    ) -> None:
        super().__init__(selection, prefetch)
        self._name = name
        self._fps = fps
        self._iterator = self._numbered(iter(frames))
        first = next((item for item in self._iterator if item[0] == selection.start), None)
        if first is None:
            raise VideoError(f"{name} gave no frame {selection.start}; expected at least {selection.start + 1} frames")
        self._first = first
        self.height, self.width = first[1].shape[:2]
        self._started = False

    @property
    def available(self) -> None:
        return None

    @property
    def native_fps(self) -> float | None:
        return self._fps

    def iter_from(self, index: int, reverse: bool = False, prepare: Callable | None = None):
        if reverse or index != 0:
            raise VideoError(f"{self._name} can only be read forward from its first frame; use a file to go elsewhere")
        if self._started:
            raise VideoError(f"{self._name} has been read already and cannot start again; open it anew, or use a file")
        self._started = True
        return super().iter_from(0, False, prepare)

    def _numbered(self, frames: Iterator) -> Generator[tuple[int, np.ndarray, float | None], None, None]:
        try:
            for index, item in enumerate(frames):
                image, time = item if isinstance(item, tuple) else (item, None)
                if index == 0:
                    check_image(image, f"frame 0 of {self._name}")
                    height, width = image.shape[:2]
                check_same_size(image, index, height, width)
                yield index, np.ascontiguousarray(image), time
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        yield self._first
        for item in self._iterator:
            if (item[0] - first) % step == 0:
                yield item

    def _read(self, source_index: int) -> np.ndarray:
        if source_index != self._first[0]:
            raise VideoError(f"{self._name} cannot go to frame {source_index}: its frames are seen once, in order")
        return self._first[1]

    def close(self) -> None:
        if not self._started:  # otherwise the iteration under way closes it
            self._iterator.close()

"""Image files, one picture or several in a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image

from sam2long.errors import VideoError, out_of_files
from sam2long.video.awake import forget, stays_awake
from sam2long.video.depth import Depth, grey_to_rgb
from sam2long.video.source import FrameSource, Selection

STACK_SUFFIXES = (".tif", ".tiff", ".webp")  # files of several pages; GIF and APNG are videos
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # PIL's convert("RGB") would clip these to white


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong inside becomes a VideoError that names the file."""
    try:
        yield
    except Image.DecompressionBombError:
        raise VideoError(
            f"image {path} has more pixels than Pillow takes for safe; make it smaller, or set "
            "PIL.Image.MAX_IMAGE_PIXELS in Python"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, VideoError):
            raise
        if (remedy := out_of_files(error)) is not None:
            raise VideoError(f"image {path} cannot be opened: {remedy}") from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VideoError(f"image {path} cannot be read ({reason}); replace or remove the file") from None


def is_deep(image: Image.Image) -> bool:
    """Whether an image, opened and not loaded yet, has 16 bits per value."""
    tiles = getattr(image, "tile", None)  # of a file only
    return image.mode in SIXTEEN_BIT or (image.format == "PNG" and tiles is not None and ";16" in str(tiles[0][-1]))


def pixels(image: Image.Image, path: Path) -> np.ndarray:
    """[H, W, 3] uint8 RGB with sam2's pixels, which are PIL's `convert("RGB")`; or, where there are 16 bits, uint16.

    EXIF rotation is not applied, alpha is dropped, palettes are looked up, grey is repeated.

    Args:
        image: opened; at the page that is wanted. path: of its file.
    """
    if image.mode == "F":
        raise VideoError(f"image {path} has floating-point values; expected 8 or 16 bits, so convert it first")
    if not is_deep(image):
        return np.array(image.convert("RGB"))
    if image.mode in SIXTEEN_BIT:
        return grey_to_rgb(np.clip(np.asarray(image).astype(np.int64), 0, 65535).astype(np.uint16))
    with av.open(f"file:{path}") as container:  # Pillow keeps 8 of the 16 bits of colours
        return next(container.decode(video=0)).to_ndarray(format="rgb48le").astype(np.uint16)


class StackSource(FrameSource):
    """The pages of one file: TIFF stacks, animated WebP."""

    def __init__(self, path: Path, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        self.path = path
        self._lock = threading.Lock()  # pages are sought in one open file
        with reading(path), Image.open(path) as image:
            self._pages = getattr(image, "n_frames", 1)
            self._duration = image.info.get("duration")  # milliseconds
            self.width, self.height = image.size
        self._file: Image.Image | None = None  # while it is awake
        self._check_not_empty(str(path))
        first = self._page(0)
        self._depth = None
        if first.dtype == np.uint16:
            self._depth = Depth.sample(self._pages, self._page)
            self.notes = self._depth.notes()

    @property
    def available(self) -> int:
        return self._pages

    @property
    def native_fps(self) -> float | None:
        return 1000 / self._duration if self._duration else None

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def sleep(self) -> bool:
        """Let go of the open file; it is opened again for the next page."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._let_go()
        finally:
            self._lock.release()
        return True

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        forget(self)

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        for index in range(first, self._pages if step > 0 else -1, step):
            yield index, self._read(index), None

    def _read(self, source_index: int) -> np.ndarray:
        page = self._page(source_index)
        return page if self._depth is None or page.dtype == np.uint8 else self._depth.to_rgb(page)

    def _page(self, number: int) -> np.ndarray:
        with self._lock, reading(self.path):
            if self._file is None:
                self._file = Image.open(self.path)
            stays_awake(self)
            self._file.seek(number)
            page = pixels(self._file, self.path)
        if page.shape[:2] != (self.height, self.width):
            raise VideoError(
                f"page {number} of {self.path} is {page.shape[1]}x{page.shape[0]} and the first one "
                f"{self.width}x{self.height} (width x height); all pages must have one size"
            )
        return page

"""What every frame source has: a selection of frames, order, random access, reading ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.picture import ORDINARY
from sam2long.video.prefetch import prefetched
from sam2long.video.timecode import later


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a source."""

    index: int  # counts the selected frames, from 0
    image: np.ndarray  # [H, W, 3] uint8 RGB, as displayed
    time: float | None  # seconds since the video's first frame; None when the source has no clock
    model_input: np.ndarray | None = None  # [S, S, 3] uint8, when it was asked for


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames of the video a source hands out: start, start + stride, ... before stop."""

    start: int = 0
    stop: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("start", "stop", "stride"):
            value = getattr(self, name)
            if value is None and name == "stop":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise VideoError(f"{name} is {value!r}; expected an integer")
        if self.start < 0:
            raise VideoError(f"start is {self.start}; expected 0 or more")
        if self.stop is not None and self.stop <= self.start:
            raise VideoError(f"stop is {self.stop} and start {self.start}; expected stop > start, or no stop")
        if self.stride < 1:
            raise VideoError(f"stride is {self.stride}; expected 1 or more")

    def count(self, available: int | None) -> int | None:
        """How many frames are selected out of `available`; None for an endless source without a stop."""
        if available is None:
            return None
        stop = available if self.stop is None else min(self.stop, available)
        return len(range(self.start, stop, self.stride))


class FrameSource(ABC):
    """Frames of a video, in order or one at a time, decoded when they are asked for.

    Attributes:
        height, width: as displayed, rotation metadata applied.
        fps: frames per second of the selected frames; None when unknown.
        num_frames: how many frames are selected; None for endless or unknown.
        names: file stems of the selected frames, for folders of images; else None.
        looks: what players have to know beside the pixels, for videos made from these frames.
        native_timecode: SMPTE timecode of the video's frame 0; None when it has none.
        variable_rate: whether the video's frames are not evenly spaced in time.
        notes: sentences about what a user may stumble over; final once an iteration has ended.
        damage: None, or at which frame the video broke off and why; final once an iteration has ended.

    Args:
        selection: which frames of the video.
        prefetch: frames decoded ahead of the consumer in a thread; 0 for no thread.
    """

    height: int
    width: int
    names: list[str] | None = None
    looks = ORDINARY
    native_timecode: str | None = None
    variable_rate = False
    notes: Sequence[str] = ()  # a property of some kinds of source

    def __init__(self, selection: Selection, prefetch: int) -> None:
        if isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0:
            raise VideoError(f"prefetch is {prefetch!r}; expected an integer of 0 or more")
        self.selection = selection
        self.prefetch = prefetch
        self.damage: str | None = None

    # ---- what a kind of source brings ------------------------------------------------------------------------

    @property
    @abstractmethod
    def available(self) -> int | None:
        """How many frames the video has before selection; None when unknown."""

    @property
    def native_fps(self) -> float | None:
        """Frames per second of the video before selection."""
        return None

    def _seconds(self, source_index: int) -> float | None:
        """When a frame of the video is shown, in seconds after the first one; None when there is no clock."""
        return None

    @abstractmethod
    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        """Source frames first, first + step, ... as (source index, image, time), until there are no more."""

    @abstractmethod
    def _read(self, source_index: int) -> np.ndarray:
        """One source frame."""

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Let go of files and devices. Iterations under way should be closed first."""

    # ---- the same for all ------------------------------------------------------------------------------------

    @property
    def num_frames(self) -> int | None:
        return self.selection.count(self.available)

    @property
    def fps(self) -> float | None:
        return None if self.native_fps is None else self.native_fps / self.selection.stride

    @property
    def timecode(self) -> str | None:
        """SMPTE timecode of the first selected frame; None without one, and with a stride, which changes the rate."""
        if self.native_timecode is None or self.native_fps is None or self.selection.stride != 1:
            return None
        frames = round((self.time(0) or 0.0) * self.native_fps) if self.variable_rate else self.selection.start
        return later(self.native_timecode, frames, self.native_fps)

    def source_index(self, index: int) -> int:
        """The number in the whole video of selected frame `index`."""
        return self.selection.start + index * self.selection.stride

    def time(self, index: int) -> float | None:
        """When selected frame `index` is shown, in seconds after the video's first frame; None without a clock."""
        return self._seconds(self.source_index(index))

    def frame(self, index: int) -> np.ndarray:
        """Any selected frame, [H, W, 3] uint8 RGB; the same pixels as iterating gives.

        Raises:
            VideoError: out of range, damaged, or a stream that cannot go back.
        """
        self._check_index(index)
        return self._read(self.source_index(index))

    def __iter__(self) -> Generator[Frame, None, None]:
        return self.iter_from(0)

    def iter_from(
        self, index: int, reverse: bool = False, prepare: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> Generator[Frame, None, None]:
        """Frames from `index` on, forwards or backwards, read ahead in a thread.

        Close the generator (or drop it) to stop early; its thread ends then.

        Args:
            index: where to begin.
            reverse: towards frame 0, which is included.
            prepare: makes each frame ready for the model, in the thread: `Frame.model_input`.
        """
        self._check_index(index)
        return prefetched(self._selected(index, -1 if reverse else 1, prepare), self.prefetch)

    def __len__(self) -> int:
        if self.num_frames is None:
            raise TypeError("this source has no known length")
        return self.num_frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_frames} frames, {self.width}x{self.height}, fps={self.fps})"

    def _selected(self, index: int, direction: int, prepare: Callable | None) -> Iterator[Frame]:
        stop = self.selection.stop
        walk = self._walk(self.source_index(index), direction * self.selection.stride)
        try:
            for source_index, image, time in walk:
                yield Frame(index, image, time, None if prepare is None else prepare(image))
                index += direction
                # Leave before the next frame is decoded for nothing.
                if index < 0:
                    return
                if stop is not None and source_index + direction * self.selection.stride >= stop:
                    return
        finally:
            close = getattr(walk, "close", None)
            if close is not None:
                close()

    def _check_index(self, index: int) -> None:
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            raise VideoError(f"frame index is {index!r}; expected an integer")
        count = self.num_frames
        if index < 0 or (count is not None and index >= count):
            span = "0 or more" if count is None else f"0 to {count - 1}"
            raise VideoError(f"frame {index} is out of range; this source has frames {span}")

    def _check_not_empty(self, name: str) -> None:
        """For constructors: a selection must leave at least one frame."""
        if self.available is not None and self.num_frames == 0:
            raise VideoError(
                f"{name} has {self.available} frames and start is {self.selection.start}; choose a smaller start"
            )

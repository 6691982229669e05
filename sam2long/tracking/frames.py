"""From a frame source to image features: resized as sam2 does it, encoded once, the latest one kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2long.errors import StateError
from sam2long.network.batched import Batched
from sam2long.network.devices import moved
from sam2long.network.protocol import FrameFeatures
from sam2long.tracking.window import Window
from sam2long.video import FrameSource, normalize_table, to_model_input


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """A frame that has been through the image encoder; any number of streams of the same predictor may be fed it."""

    height: int  # of the picture, in pixels
    width: int
    features: FrameFeatures


class FrameReader:
    """Reads frames of a source as image features.

    Args:
        source: where frames come from.
        model: whose image encoder is used, and says how many frames go through it at a time.
    """

    def __init__(self, source: FrameSource, model: Batched) -> None:
        self.source = source
        self.model = model
        table = torch.from_numpy(np.asarray(normalize_table(model.network.mean, model.network.std)))  # [3, 256]
        self._tables = table.to(model.device).unbind()
        self.prepare = partial(to_model_input, image_size=model.network.image_size, resize=model.network.resize)
        self.latest: tuple[int, FrameFeatures] | None = None  # the frame that was asked for last
        self._pushed: tuple[int, np.ndarray] | None = None  # the one that was read or brought last by itself
        self._parts: dict[tuple[int, Window], FrameFeatures] = {}  # of one frame

    def features(self, frame: int) -> FrameFeatures:
        """Features of any frame; asking for the same frame again costs nothing."""
        if (latest := self.latest) is not None and latest[0] == frame:
            return latest[1]
        image = self.picture(frame)
        self._encode_whole(frame, self.source.frame(frame) if image is None else image)
        assert self.latest is not None
        return self.latest[1]

    def seen(self, frame: int, view: Window | None) -> FrameFeatures:
        """Features of a part of a frame that has a `picture`; None: of the whole one."""
        if view is not None and view == Window.of_all(self.source.height, self.source.width):
            view = None
        if view is None:
            return self.features(frame)
        part = frame, view
        if part not in self._parts:
            image = self.picture(frame)
            assert image is not None  # a stream without pictures is not looked at in parts
            self._parts = {key: known for key, known in self._parts.items() if key[0] == frame}
            (self._parts[part],) = self.encode([self.prepare(image[view.slices])])
        return self._parts[part]

    def sequence(
        self, start: int, count: int, direction: int, when_asked: bool = False
    ) -> Iterator[tuple[int, FrameFeatures | None, Callable[[], None]]]:
        """Features of `count` frames from `start` on, in one direction, read ahead in a thread.

        With each of them comes a function that has the next one encoded, for when the device has nothing else to do.
        With `when_asked`, for objects that are tracked in parts of the picture, nothing is encoded, and None comes
        instead of features: `seen` has them.

        Ends early where the source does (a damaged file says so in its `damage`).
        """
        if count <= 0:
            return
        if when_asked:
            yield from self._pictures(start, count, direction)
            return
        ahead = _Ahead(self, start, count, direction)
        try:
            while (item := ahead.next()) is not None:
                index, features, image = item
                self.latest, self._pushed = (index, features), (index, image)
                yield index, features, ahead.fill
        finally:
            ahead.close()

    def _pictures(self, start: int, count: int, direction: int) -> Iterator[tuple[int, None, Callable[[], None]]]:
        frames = self.source.iter_from(start, reverse=direction < 0)
        try:
            for frame in islice(frames, count):
                self._hold(frame.index, frame.image)
                yield frame.index, None, _nothing
        finally:
            frames.close()

    def push(self, frame: int, image: np.ndarray | EncodedFrame) -> None:
        """Take in a frame that the caller brings; what is asked of a picture is encoded when it is."""
        if isinstance(image, EncodedFrame):
            self._encode_whole(frame, image)
        else:
            self._hold(frame, image)

    def _hold(self, frame: int, image: np.ndarray) -> None:
        self._pushed = frame, image
        if self.latest is not None and self.latest[0] != frame:
            self.latest = None  # of a frame that is over

    def _encode_whole(self, frame: int, image: np.ndarray | EncodedFrame) -> None:
        self.latest = (frame, self.encoded(image).features)
        self._pushed = None if isinstance(image, EncodedFrame) else (frame, image)

    def picture(self, frame: int) -> np.ndarray | None:
        """A frame's pixels [H, W, 3] uint8; None where only its features were brought, or a stream has passed it."""
        if self._pushed is not None and self._pushed[0] == frame:
            return self._pushed[1]
        if self.source.num_frames is None:
            return None
        self._pushed = frame, self.source.frame(frame)
        return self._pushed[1]

    def encoded(self, image: np.ndarray | EncodedFrame) -> EncodedFrame:
        """One picture [H, W, 3] uint8 through the encoder, if it has not been there."""
        if isinstance(image, EncodedFrame):
            return image
        return EncodedFrame(*image.shape[:2], *self.encode([self.prepare(image)]))

    def encode(self, images: list[np.ndarray]) -> list[FrameFeatures]:
        """Features of frames [S, S, 3] uint8, in one pass of the encoder."""
        pixels = moved(torch.from_numpy(np.stack(images)), self.model.device).int()
        # A table look-up gives sam2's float32 values to the bit, on every device.
        channels = [
            table.index_select(0, values.flatten()).view(values.shape)
            for table, values in zip(self._tables, pixels.unbind(-1), strict=True)
        ]
        with self.model.running():
            return self.model.encode(torch.stack(channels, dim=1))


def _nothing() -> None:
    """There is nothing to encode ahead."""


class _Ahead:
    """A stretch of a video on its way through the image encoder, as many frames at a time as the model says."""

    def __init__(self, reader: FrameReader, start: int, count: int, direction: int) -> None:
        self.reader = reader
        source = reader.source
        self.frames = source.iter_from(start, reverse=direction < 0, prepare=reader.prepare)
        self.left = count  # frames that have not been read
        self.encoded: deque[tuple[int, FrameFeatures, np.ndarray]] = deque()
        self.error: Exception | None = None  # it belongs to a later frame than the one under way

    def next(self) -> tuple[int, FrameFeatures, np.ndarray] | None:
        if not self.encoded:
            if self.error is not None:
                raise self.error
            self._encode()
        return self.encoded.popleft() if self.encoded else None

    def fill(self) -> None:
        """Have the next frame encoded."""
        if self.encoded or self.error is not None:
            return
        try:
            self._encode()
        except Exception as error:  # raised by `next`: the frame that is under way has nothing to do with it
            self.error = error

    def close(self) -> None:
        self.frames.close()

    def _encode(self) -> None:
        size = self.reader.model.frames_per_pass
        taken = list(islice(self.frames, min(size, self.left)))
        self.left -= len(taken)
        if taken and (known := self.reader.latest) and known[0] == taken[0].index:  # a prompt was given there
            self.encoded.append((*known, taken[0].image))
            del taken[0]
        # Less than a full pass goes one by one: two shapes for torch.compile, not as many as there are remainders.
        parts = [taken] if len(taken) == size else [[frame] for frame in taken]
        for part in parts:
            features = self.reader.encode([frame.model_input for frame in part if frame.model_input is not None])
            for frame, one in zip(part, features, strict=True):
                self.encoded.append((frame.index, one, frame.image))


class LiveSource:
    """The frames of a stream that the caller feeds: only the latest one can be asked for."""

    num_frames = None
    fps = None
    names = None
    damage = None

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def frame(self, index: int) -> np.ndarray:
        raise StateError(
            f"frame {index} of a live stream is gone; prompts and corrections go on the frame that was given last"
        )

    def iter_from(self, index: int, reverse: bool = False) -> Iterator:
        raise StateError("a live stream has no stored frames to go through; feed frames with track()")

    def close(self) -> None:
        """Nothing is held."""


def rgb_image(frame: Any) -> np.ndarray:
    """A caller's frame as [H, W, 3] uint8 RGB; StateError if it is none."""
    image = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else np.asarray(frame)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise StateError(f"frame has shape {image.shape} and dtype {image.dtype}; expected [H, W, 3] uint8 RGB")
    return image

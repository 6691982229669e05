"""Prompts are answered by a network for still pictures.

A small network that tracks well marks badly: it sees few pixels, and has seen few things. So nano has MobileSAM beside
it (sam2long/network/mobilesam.py), which looks at a prompted frame at full size; what that marks counts as a mask that
the user gave.

Something small is looked at in a part of the picture, an old idea of interactive segmentation (f-BRS, arXiv 2001.10331,
Sec. 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sam2long.network.masks import boxes
from sam2long.network.mobilesam import CELL, MobileSAM, Seen, mobilesam
from sam2long.network.protocol import Points
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.prompts import BOX_LABELS, POSITIVE
from sam2long.tracking.window import LOGITS, SURE, Window, inside, reframed

NEAR, WIDTH = 512, 4  # a part of the picture has at least so many pixels of it, and so many sizes of the object
AS_GOOD = 0.06  # of predicted IoU: who clicks once means a thing rather than a part of it
FARTHEST = 0.6  # of the picture's longer side: a larger part is not worth it


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """A mask of a part of the picture: [1, 1, h, w] logits."""

    logits: Tensor
    view: Window


class Stills:
    """Frames of a video as the network for still pictures sees them.

    Args:
        reader: of the frames.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._height, self._width = reader.source.height, reader.source.width
        self._size = reader.model.network.image_size
        self._seen: dict[tuple[int, Window], Seen] = {}  # of one frame

    def answer(self, frame: int, points: Points, previous: Marked | None, tracked: bool = False) -> Marked | None:
        """What a prompt marks on a frame that has a picture; None where no click says what the object is.

        Args:
            points: coordinates [1, n, 2] in model pixels and labels [1, n]: a box's corners, clicks.
            previous: what is marked there so far, which clicks refine.
            tracked: that is what memories make of the clicks. It counts half; and as no click may say what the object
                is, the box around it is asked for as well.
        """
        if previous is not None and not (previous.logits > 0).any():
            previous = None  # there is nothing to refine
        if boxed(points):
            return self._marked(frame, points, previous, self._box(points))
        if tracked and previous is not None:
            extent = self._extent(previous, points)
            return _mean(self._marked(frame, self._with_box(points, extent), previous, extent), previous)
        if previous is None:
            clicks = [at for at, label in enumerate(points[1][0].tolist()) if label == POSITIVE]
            if not clicks:
                return None
            previous = self._clicked(frame, (points[0][:, clicks[:1]], points[1][:, clicks[:1]]))
            if points[1].shape[1] == 1:
                return previous
        return self._marked(frame, points, previous, self._extent(previous, points))

    def _clicked(self, frame: int, click: Points) -> Marked:
        """What one click marks: of the whole, a part and a part of it, the largest that may well be right."""
        seen = self._look(frame, self._all)
        logits, ious = self._network().mark(seen, points=self._placed(click, self._all, seen), several=True)
        sizes = (logits[0] > 0).flatten(1).sum(1)
        largest = torch.where(ious[0] >= ious.max() - AS_GOOD, sizes, -1).argmax()
        best = Marked(logits[:, largest][:, None], self._all)
        extent = self._extent(best, click)
        return best if self._around(extent) == self._all else self._marked(frame, click, best, extent)

    def _marked(self, frame: int, points: Points, previous: Marked | None, extent: Tensor) -> Marked:
        """One mask, of all that was said. extent: of what is meant, as `_box` has it."""
        view = self._around(extent)
        seen = self._look(frame, view)
        coords, labels = self._placed(points, view, seen)
        box = None
        if boxed(points):
            corners = [(labels[0] == label).nonzero()[-1, 0] for label in BOX_LABELS]
            box = coords[:, corners].flatten(1)
            clicks = labels[0] <= POSITIVE
            coords, labels = coords[:, clicks], labels[:, clicks]
        before = None
        if previous is not None:
            grid = seen.height // CELL, seen.width // CELL
            before = reframed(previous.logits, previous.view, view, grid).clamp(-LOGITS, LOGITS)
        clicked = (coords, labels) if labels.shape[1] else None
        return Marked(self._network().mark(seen, points=clicked, boxes=box, previous=before)[0], view)

    def _network(self) -> MobileSAM:
        """Loaded with the first prompt that asks: who gives masks needs none."""
        return mobilesam(self._reader.model.device)

    def _look(self, frame: int, view: Window) -> Seen:
        key = frame, view
        if key not in self._seen:
            picture = self._reader.picture(frame)
            assert picture is not None  # a stream without pictures is not looked at
            self._seen = {at: known for at, known in self._seen.items() if at[0] == frame}
            self._seen[key] = self._network().see(picture[view.slices])
        return self._seen[key]

    def _placed(self, points: Points, view: Window, seen: Seen) -> Points:
        """A prompt in pixels of what is seen of a window."""
        coords, labels = inside(points, view, self._height, self._width, self._size)
        return coords * torch.tensor([seen.width, seen.height], device=coords.device) / self._size, labels

    def _pixels(self, coords: Tensor) -> Tensor:
        """Of the video, [n, 2]."""
        return coords[0].cpu() * torch.tensor([self._width, self._height]) / self._size

    def _box(self, points: Points) -> Tensor:
        """The last box and the positive clicks: first and last corner around them, [2, 2] in pixels of the video."""
        coords, labels = self._pixels(points[0]), points[1][0].cpu()
        corners = [coords[labels == label][-1:] for label in BOX_LABELS]
        return _corners(torch.cat([*corners, coords[labels == POSITIVE]]))

    def _with_box(self, points: Points, extent: Tensor) -> Points:
        """A prompt and a box. extent: of the box, in pixels of the video."""
        coords, labels = points
        corners = (extent * self._size / torch.tensor([self._width, self._height])).to(coords)
        return torch.cat([coords, corners[None]], 1), torch.cat([labels, labels.new_tensor([BOX_LABELS])], 1)

    def _extent(self, marked: Marked, points: Points) -> Tensor:
        """Of what is marked and the positive clicks, as `_box`."""
        left, top, right, bottom = boxes(marked.logits[0, 0]).tolist()
        view, (rows, columns) = marked.view, marked.logits.shape[-2:]
        cells = torch.tensor([view.width / columns, view.height / rows])
        corners = torch.tensor([[left, top], [right, bottom]]) * cells + torch.tensor([view.left, view.top])
        clicks = self._pixels(points[0])[points[1][0].cpu() == POSITIVE]
        return _corners(torch.cat([corners if right else corners[:0], clicks]))

    def _around(self, extent: Tensor) -> Window:
        """A square part of the picture with something in its middle; all of it where that shows no less."""
        side = max(NEAR, round(WIDTH * float((extent[1] - extent[0]).max())))
        if side > FARTHEST * max(self._width, self._height):
            return self._all
        width, height = min(side, self._width), min(side, self._height)
        middle = extent.mean(0)
        left, top = (
            round(min(max(0.0, float(at) - part / 2), whole - part))
            for at, part, whole in zip(middle, (width, height), (self._width, self._height), strict=True)
        )
        return Window(left, top, width, height)

    @property
    def _all(self) -> Window:
        return Window.of_all(self._height, self._width)


def boxed(points: Points) -> bool:
    """Whether a prompt has a box among its points."""
    labels = points[1][0].tolist()
    return all(label in labels for label in BOX_LABELS)


def _mean(marked: Marked, other: Marked) -> Marked:
    """Of two masks of a picture, as the first one's view has them."""
    moved = reframed(other.logits, other.view, marked.view, tuple(marked.logits.shape[-2:]))
    return Marked((marked.logits.clamp(-SURE, SURE) + moved.clamp(-SURE, SURE)) / 2, marked.view)


def _corners(points: Tensor) -> Tensor:
    """First and last corner of the box around points [n, 2]."""
    return torch.stack([points.amin(0), points.amax(0)])

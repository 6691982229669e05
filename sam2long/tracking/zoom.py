"""Where a prompt points, the picture is looked at closely: in a crop, and in a mirror.

A frame goes into the network at a fixed size, so a ball of a hand's width is a few pixels of its features. Zooming in
where a prompt points is an old idea of interactive segmentation (f-BRS, arXiv 2001.10331, Sec. 3.4). What is marked in
a crop is averaged with what is marked in its mirror image, as image classifiers have long been asked twice (VGG, arXiv
1409.1556, Sec. 3.2): a small network errs in another place each time. It costs two passes of the image encoder on a
prompted frame, and what is found counts as a mask that the user gave.

A first click does not say how large the object is, so it is looked at from two distances, or three. The mask that
counts is the one that the network predicts to be good and that hardly changes with the threshold: the stability score
by which SAM chooses masks where nobody points (arXiv 2304.02643, App. B).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2long.network.batched import Batched
from sam2long.network.protocol import FrameFeatures, Points
from sam2long.tracking.prompts import BOX_LABELS, POSITIVE
from sam2long.tracking.window import LOGITS, Window, inside, mirrored, reframed

MARGIN = 1.6  # of the longer side of what is marked: how much of the picture is looked at
NEARER = (2.5, 6.0)  # how much smaller than the picture further looks at a click are, while each finds a better mask
SLIMMEST = 0.5  # of a window's longer side: the least that its shorter one is
LARGEST = 0.8  # of the picture's width and height: a window that is wider or higher would bring nothing
SMALLEST = 32  # pixels of a window's side
OFFSET = 1.0  # of the threshold, up and down, in logits
CUT_OFF = 0.5  # taken from the score of a mask that touches the window's edge: the object goes on outside


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A frame that prompts point at.

    Args:
        height, width: of the video. size: S, the side of the model's input.
        model: the network, within `running`.
        look: image features of a window of the frame, or of the window's mirror image.
    """

    height: int
    width: int
    size: int
    model: Batched
    look: Callable[[Window, bool], FrameFeatures]

    def closer(self, points: Points, previous: Tensor | None) -> Tensor | None:
        """What a prompt marks when it is looked at closely.

        Args:
            points: coordinates [1, n, 2] in model pixels and labels [1, n].
            previous: [1, 1, 4h, 4w] logits of the frame's mask so far, which clicks refine.
        Returns:
            [S, S] bool; None where no click says what the object is.
        """
        labels = points[1][0].tolist()
        around = boxed(points)
        if around and len(labels) == len(BOX_LABELS):
            previous = None  # a box starts anew
        if not around and previous is None:
            clicks = [at for at, label in enumerate(labels) if label == POSITIVE]
            if not clicks:
                return None
            found = self._clicked((points[0][:, clicks[:1]], points[1][:, clicks[:1]]))
            if len(labels) == 1:
                return found > 0
            previous = found[None, None]
        return self.marked(points, previous) > 0

    def marked(self, points: Points, previous: Tensor | None) -> Tensor:
        """[S, S] logits of what a prompt marks in the part of the picture that it is about. Args as for `closer`."""
        around = None if boxed(points) else previous
        view = window(points, around, self.height, self.width, self.size) or self._all
        seen = inside(points, view, self.height, self.width, self.size)
        before = None if previous is None else self._cropped(previous, view)
        there = None if before is None else before.flip(-1)
        mask = self.model.prompt(self.look(view, False), points=seen, previous=before).mask
        other = self.model.prompt(self.look(view, True), points=mirrored(seen, self.size), previous=there).mask
        return self._pasted((mask + other.flip(-1)) / 2, view)

    def _candidates(self, view: Window, click: Points) -> tuple[Tensor, Tensor]:
        """Of a click in a window: K masks [K, 4h, 4w], logits, and their predicted IoUs [K]."""
        seen = inside(click, view, self.height, self.width, self.size)
        masks, ious = self.model.candidates(self.look(view, False), seen)
        others, more = self.model.candidates(self.look(view, True), mirrored(seen, self.size))
        return (masks + others.flip(-1)) / 2, (ious + more) / 2

    def _clicked(self, click: Points) -> Tensor:
        """[S, S] logits of a first click's best mask."""
        best, found = -math.inf, None
        for view in (self._all, *(self._around(click, nearer) for nearer in NEARER)):
            masks, ious = self._candidates(view, click)
            scores = ious * stability(masks) - CUT_OFF * self._cut_off(masks, view)
            if scores.max() <= best:
                break
            best, found = scores.max(), self._pasted(masks[scores.argmax()][None, None], view)
        assert found is not None
        return found

    def _around(self, click: Points, nearer: float) -> Window:
        """A window of the picture's shape around a click, in the picture."""
        sides = [max(round(side / nearer), min(SMALLEST, side)) for side in (self.width, self.height)]
        at = click[0][0, 0].cpu() * torch.tensor([self.width, self.height]) / self.size
        left, top = (
            int(min(max(0, float(middle) - side / 2), whole - side))
            for middle, side, whole in zip(at, sides, (self.width, self.height), strict=True)
        )
        return Window(left, top, *sides)

    def _cut_off(self, masks: Tensor, view: Window) -> Tensor:
        """Of masks [K, h, w] in a window: 1 where one touches an edge that is not the picture's, else 0."""
        edges = (
            (view.left > 0, masks[:, :, 0]), (view.top > 0, masks[:, 0]),
            (view.left + view.width < self.width, masks[:, :, -1]),
            (view.top + view.height < self.height, masks[:, -1]),
        )  # fmt: skip
        inner = [edge for within, edge in edges if within]
        return (torch.cat(inner, 1).amax(1) > 0).float() if inner else torch.zeros(len(masks), device=masks.device)

    @property
    def _all(self) -> Window:
        return Window.of_all(self.height, self.width)

    def _pasted(self, logits: Tensor, view: Window) -> Tensor:
        """A window's mask as logits of the whole frame, [S, S] in model pixels."""
        return reframed(logits, view, self._all, self.size)[0, 0]

    def _cropped(self, previous: Tensor, view: Window) -> Tensor:
        """A mask of the whole frame [1, 1, *, *], as the mask prompt of a window, [1, 1, 4h, 4w]."""
        return reframed(previous, self._all, view, self.model.network.mask_size).clamp(-LOGITS, LOGITS)


def boxed(points: Points) -> bool:
    """Whether a prompt has a box among its points."""
    labels = points[1][0].tolist()
    return all(label in labels for label in BOX_LABELS)


def stability(masks: Tensor) -> Tensor:
    """Of logits [K, h, w]: IoU of each mask with itself under a higher and a lower threshold, [K]."""
    high, low = ((masks > shift).flatten(1).sum(1) for shift in (OFFSET, -OFFSET))
    return high / low.clamp(min=1)


def window(points: Points, marked: Tensor | None, height: int, width: int, size: int) -> Window | None:
    """The part of a picture to look at; None where a closer look would show no more.

    Args:
        points: coordinates [1, n, 2] in model pixels and labels [1, n]: box corners, and clicks, which stay in view.
        marked: [1, 1, *, *] logits of the frame's mask so far, for clicks without a box.
        height, width: of the picture. size: S, the side of the model's input.
    """
    coords, labels = (part[0].cpu() for part in points)
    extent = torch.tensor([width, height])
    pixels = coords[labels >= POSITIVE] * extent / size
    if marked is None:
        found = torch.cat([coords[labels == label][-1:] for label in BOX_LABELS]) * extent / size
    else:
        rows, columns = (marked[0, 0] > 0).nonzero().cpu().unbind(1)
        if not len(rows):
            return None
        grid = extent / torch.tensor(marked.shape[:1:-1])  # pixels of a cell
        corners = [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]
        found = torch.cat([torch.tensor(corners) * grid, pixels])
    low, high = found.amin(0), found.amax(0)
    sides = (high - low).maximum(SLIMMEST * (high - low).max()) * MARGIN
    reach = sides.clamp(min=SMALLEST) / 2
    middle = (low + high) / 2
    pixels = torch.cat([pixels, middle[None]])  # what is only said not to be the object need not be in view
    first = torch.minimum(middle - reach, pixels.amin(0)).floor().clamp(min=0)
    last = torch.maximum(middle + reach, pixels.amax(0)).ceil().minimum(extent)
    (left, top), (across, down) = first.int().tolist(), (last - first).int().tolist()
    if across > LARGEST * width or down > LARGEST * height:
        return None
    return Window(left, top, across, down)

"""Something small is tracked in a part of the picture that goes with it.

A frame goes into the network at a fixed size, so something small is a few pixels of its features, and is lost to what
is next to it. Trackers have long searched a window around the last place instead of the picture (SiamFC, arXiv
1606.09549, Sec. 2.2). Here each object has such a window, a few times as large as the object; to the network it is a
video of its own, whose camera moves. While the object is not found, the window grows up to the whole picture.

A small thing is in one place: what is marked farther away from it than a quarter of its size is another thing, unless
a prompt marked things as far from each other.

Whether an object is small is seen on the frame that it is first prompted on: one that looks small later may only be
leaving the picture, and from nearer its neighbours look like it. All others are tracked in the whole picture, as ever,
and share its encoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sam2long.network.masks import boxes, gathered
from sam2long.network.protocol import Box
from sam2long.tracking.window import Window

WIDTH = 3.0  # of a window, in sizes of the object
NEAREST = 0.25  # of the picture's width and height: the smallest window
DETAIL = 2 / 3  # of the network's pixels: a window of fewer pixels than that shows nothing that was not seen before
FARTHEST = 0.8  # a larger one is the whole picture
BEGINS = 0.65  # of a first prompt: a larger window is not worth it
GROWS, SHRINKS = 1.05, 1.1  # at most, from one frame to the next: a mask that spills over takes no window along
SEARCHES = 1.25  # while nothing is found
STEADY = 1.3  # a prompt that would change a window by less leaves it
GAP = 1 / 12  # of a window, a quarter of the object: what is farther away from it is another thing


def in_one_place(masks: Tensor) -> Tensor:
    """Masks of windows [N, 1, h, h], logits, without what is far from the object: a ball without the white shoes."""
    return gathered(masks, gap=2 * round(GAP * masks.shape[-1] / 2))


def scattered(mask: Tensor, view: Window | None) -> bool:
    """Whether a prompt in a window marks things far from each other: then all of them are meant.

    Args:
        mask: [1, 1, h, h] logits, of `view`; in the whole picture nobody asks.
    """
    return view is not None and not torch.equal(in_one_place(mask) > 0, mask > 0)


@dataclass(frozen=True, slots=True)
class CloseUp:
    """How the objects of a video are looked at. A view of None is the whole picture.

    Args:
        height, width: of the video. size: S, the side of the network's input.
    """

    height: int
    width: int
    size: int

    def of_prompt(self, mask: Tensor, view: Window | None, stays_whole: bool = False) -> Window | None:
        """Where an object is looked at from a prompt on.

        Args:
            mask: [1, 1, h, h] logits, of `view`.
            stays_whole: the object has been tracked there, in the whole picture.
        """
        left, top, right, bottom = map(int, boxes(mask[0, 0]).tolist())
        box = self._in_picture((left, top, right, bottom), mask.shape[-1], view)
        if box is None or stays_whole:
            return view
        share = self._wanted(box)
        now = 1.0 if view is None else self._share(view)
        if share > BEGINS if view is None else 1 / STEADY <= share / now <= STEADY:
            return view
        return self._around(box, share)

    def after(self, cells: Box | None, side: int, view: Window | None) -> Window | None:
        """Where the next frame is looked at: an object that is in the whole picture stays there.

        Args:
            cells: around the mask, in its pixels; None: the object is not there.
            side: of the mask.
            view: where this frame was looked at.
        """
        if view is None:
            return None
        box, now = None if cells is None else self._in_picture(cells, side, view), self._share(view)
        if box is None:
            middle = view.left, view.top, view.left + view.width, view.top + view.height
            return self._around(middle, SEARCHES * now) or self._whole
        return self._around(box, min(max(self._wanted(box), min(now / SHRINKS, FARTHEST)), now * GROWS))

    @property
    def _whole(self) -> Window:
        return Window.of_all(self.height, self.width)

    def _share(self, view: Window) -> float:
        return view.width / self.width

    def _wanted(self, box: tuple[float, float, float, float]) -> float:
        left, top, right, bottom = box
        detail = DETAIL * self.size / (self.width * self.height) ** 0.5
        return max(WIDTH * max((right - left) / self.width, (bottom - top) / self.height), NEAREST, detail)

    def _around(self, box: tuple[float, float, float, float], share: float) -> Window | None:
        """A window of the picture's shape with the box in its middle, in the picture."""
        if share > FARTHEST:
            return None
        width, height = max(round(share * self.width), 1), max(round(share * self.height), 1)
        left, top = (
            min(max(round((low + high - side) / 2), 0), whole - side)
            for low, high, side, whole in (
                (box[0], box[2], width, self.width),
                (box[1], box[3], height, self.height),
            )
        )
        return Window(left, top, width, height)

    def _in_picture(self, cells: Box, side: int, view: Window | None) -> tuple[float, float, float, float] | None:
        """The same box in pixels of the picture; None where nothing is marked."""
        if cells[2] == 0:
            return None
        view = view or self._whole
        across, down = view.width / side, view.height / side
        return (
            view.left + cells[0] * across,
            view.top + cells[1] * down,
            view.left + cells[2] * across,
            view.top + cells[3] * down,
        )

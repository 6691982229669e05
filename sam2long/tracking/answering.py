"""How a prompt on a frame is answered: with what is known of the object there, and from how near."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from sam2long.method.memory import Reading
from sam2long.network.batched import Batched
from sam2long.network.masks import fill_small_holes
from sam2long.network.protocol import Points, PromptOutput
from sam2long.tracking import zoom
from sam2long.tracking.close_up import CloseUp
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.window import LOGITS, Window, holds, inside, reframed

Memories = Callable[[], tuple["Reading | None", int]]  # what an object attends to on a frame, and how many pointers


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a frame shows of an object when a prompt comes."""

    mask: Tensor | None  # [1, 1, 4h, 4w] logits, of `view`; None: nothing yet
    view: Window | None  # None: the whole picture
    prompted: bool  # the mask is an earlier prompt's


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the network made of a prompt. Masks are of `view`."""

    output: PromptOutput
    view: Window | None
    mask: Tensor | None = None  # [S, S], bool or soft: what counts as given, instead of the points


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What answers depend on beside the prompt.

    Args:
        reader: of the frames. model: the network, within `running`.
        hole_area: as for `Session`.
        zoom_in: whether prompts are looked at from nearer.
        close_up: windows of what is small; None: there are none.
    """

    reader: FrameReader
    model: Batched
    hole_area: int
    zoom_in: bool
    close_up: CloseUp | None

    def answer(
        self, frame: int, points: Points | None, mask: Tensor | None, shown: Shown, memories: Memories | None
    ) -> Answer:
        """The network's answer to a mask, or to points.

        Args:
            points: all that count on this frame, in model pixels: coordinates [1, n, 2] and labels [1, n].
            mask: [S, S], bool or soft.
            memories: called when the answer depends on them; None: the frame has not been tracked.
        """
        # Where prompts are looked at closely, a box starts anew: nothing tracked is asked what it shows.
        anew = memories is None or (self.zoom_in and points is not None and zoom.boxed(points))
        previous = shown.mask
        if anew and not shown.prompted:
            previous = None
        elif not anew and previous is None:
            previous = self.model.absent()
        if points is not None and anew and self.zoom_in:
            mask = self._closer(frame, points, self.moved(previous, shown.view, None, self._size))
        stays_whole = memories is not None and shown.view is None
        if mask is not None:
            found = self._marked(frame, mask, stays_whole)
        else:
            assert points is not None
            view = shown.view
            if view is not None and not holds(view, points, *self._picture, self._size):
                previous, view = self.moved(previous, view, None), None
            found = self._pointed(frame, points, previous, view, stays_whole, None if anew else memories)
            if self.zoom_in and not anew:
                found = self._both(frame, points, found, stays_whole)
        filled = fill_small_holes(found.output.mask, self.hole_area)
        return dataclasses.replace(found, output=dataclasses.replace(found.output, mask=filled))

    def moved(self, mask: Tensor | None, view: Window | None, to: Window | None, side: int = 0) -> Tensor | None:
        """A mask [1, 1, h, w], logits or bool, as another view has it; of its own size, or another one."""
        if mask is None or view == to:
            return mask
        logits = mask if mask.is_floating_point() else mask.float() - 0.5
        moved = reframed(logits, self._window(view), self._window(to), side or mask.shape[-1])
        return moved if mask.is_floating_point() else moved > 0

    def _marked(self, frame: int, mask: Tensor, stays_whole: bool) -> Answer:
        """A mask of the whole picture, in the window that it is looked at in from now on."""
        seen = mask.float()[None, None]
        view = self._view_of(seen - 0.5, None, stays_whole)
        nearer = None if view is None else self._in_window(frame, seen - 0.5, None, view)
        return nearer or Answer(self.model.prompt(self.reader.seen(frame, None), mask=seen), None, mask)

    def _pointed(
        self,
        frame: int,
        points: Points,
        previous: Tensor | None,
        view: Window | None,
        stays_whole: bool,
        memories: Memories | None,
    ) -> Answer:
        """What points mark; a mask in another window where that shows more."""
        reading, num_pointers = (None, 1) if memories is None else memories()
        output = self.model.prompt(
            self.reader.seen(frame, view),
            points=points if view is None else inside(points, view, *self._picture, self._size),
            previous=None if previous is None else previous.clamp(-LOGITS, LOGITS),
            reading=reading,
            num_pointers=num_pointers,
        )
        nearer = self._view_of(output.mask, view, stays_whole)
        closely = None if nearer == view else self._in_window(frame, output.mask, view, nearer)
        return closely or Answer(output, view)

    def _in_window(self, frame: int, logits: Tensor, view: Window | None, to: Window | None) -> Answer | None:
        """A mask of one view, given as a mask of another; None where that shows nothing of it."""
        mask = reframed(logits, self._window(view), self._window(to), self._size)[0, 0] > 0
        if not mask.any():
            return None
        return Answer(self.model.prompt(self.reader.seen(frame, to), mask=mask.float()[None, None]), to, mask)

    def _view_of(self, logits: Tensor, view: Window | None, stays_whole: bool) -> Window | None:
        """Where an object is looked at from a prompt on."""
        return view if self.close_up is None else self.close_up.of_prompt(logits, view, stays_whole)

    def _closer(self, frame: int, points: Points, previous: Tensor | None) -> Tensor | None:
        """Bool [S, S], what a prompt marks when it is looked at closely; None where nothing says what is meant."""
        seen = self._closely(frame)
        mask = None if seen is None else seen.closer(points, previous)
        return mask if mask is not None and mask.any() else None

    def _both(self, frame: int, points: Points, tracked: Answer, stays_whole: bool) -> Answer:
        """Clicks on what is tracked: the mean of what memories answered, and of that refined as it is seen closely."""
        seen = self._closely(frame)
        if seen is None:
            return tracked
        logits = reframed(tracked.output.mask, self._window(tracked.view), self._window(None), self._size)
        mask = logits[0, 0] + seen.marked(points, logits) > 0
        return self._marked(frame, mask, stays_whole) if mask.any() else tracked

    def _closely(self, frame: int) -> zoom.Picture | None:
        """A frame to look at in parts; None where there are only its features."""
        if self.reader.picture(frame) is None:
            return None
        height, width = self._picture
        return zoom.Picture(
            height=height, width=width, size=self._size, model=self.model, look=partial(self.reader.seen, frame)
        )

    def _window(self, view: Window | None) -> Window:
        return view or Window.of_all(*self._picture)

    @property
    def _picture(self) -> tuple[int, int]:
        """Height and width."""
        return self.reader.source.height, self.reader.source.width

    @property
    def _size(self) -> int:
        """S, the side of the network's input."""
        return self.model.network.image_size

"""How a prompt on a frame is answered: with what is known of the object there, and from how near."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sam2long.method.memory import Reading
from sam2long.network.batched import Batched
from sam2long.network.masks import fill_small_holes
from sam2long.network.protocol import Points, PromptOutput
from sam2long.tracking.close_up import CloseUp
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.stills import Marked, Stills, boxed
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
        stills: who answers prompts where frames have pictures; None: the model itself.
        close_up: windows of what is small; None: there are none.
    """

    reader: FrameReader
    model: Batched
    hole_area: int
    stills: Stills | None
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
        # Where another network answers, a box starts anew: nothing tracked is asked what it shows.
        anew = memories is None or (self.stills is not None and points is not None and boxed(points))
        previous = shown.mask
        if anew and not shown.prompted:
            previous = None
        elif not anew and previous is None:
            previous = self.model.absent()
        stays_whole = memories is not None and shown.view is None
        marked = self._still(frame, points, previous, shown.view) if points is not None and anew else None
        if marked is not None:
            found = self._marked(frame, marked, stays_whole)
        elif mask is not None:
            found = self._given(frame, mask, None, stays_whole)
        else:
            assert points is not None
            view = shown.view
            if view is not None and not holds(view, points, *self._picture, self._size):
                previous, view = self.moved(previous, view, None), None
            found = self._pointed(frame, points, previous, view, stays_whole, None if anew else memories)
            if not anew:
                marked = self._still(frame, points, found.output.mask, found.view, tracked=True)
                found = found if marked is None else self._marked(frame, marked, stays_whole)
        filled = fill_small_holes(found.output.mask, self.hole_area)
        return dataclasses.replace(found, output=dataclasses.replace(found.output, mask=filled))

    def moved(self, mask: Tensor | None, view: Window | None, to: Window | None, side: int = 0) -> Tensor | None:
        """A mask [1, 1, h, w], logits or bool, as another view has it; of its own size, or another one."""
        if mask is None or view == to:
            return mask
        logits = mask if mask.is_floating_point() else mask.float() - 0.5
        moved = reframed(logits, self._window(view), self._window(to), side or mask.shape[-1])
        return moved if mask.is_floating_point() else moved > 0

    def _marked(self, frame: int, marked: Marked, stays_whole: bool) -> Answer:
        """What the network for still pictures marked counts as given."""
        whole = reframed(marked.logits, marked.view, self._window(None), self._size)
        return self._given(frame, whole[0, 0] > 0, marked, stays_whole)

    def _given(self, frame: int, mask: Tensor, finer: Marked | None, stays_whole: bool) -> Answer:
        """A mask, in the window that it is looked at in from now on.

        Args:
            mask: [S, S], bool or soft, of the whole picture.
            finer: the same of a part of it, where more is known than that.
        """
        seen = mask.float()[None, None]
        view = self._view_of(seen - 0.5, None, stays_whole)
        if view is not None:
            finer = finer or Marked(seen - 0.5, self._window(None))
            nearer = self._in_window(frame, finer.logits, finer.view, view)
            if nearer is not None:
                return nearer
        return Answer(self.model.prompt(self.reader.seen(frame, None), mask=seen), None, mask)

    def _still(
        self, frame: int, points: Points, previous: Tensor | None, view: Window | None, tracked: bool = False
    ) -> Marked | None:
        """What the network for still pictures marks; None where it is not asked, or marks nothing.

        Args:
            previous: [1, 1, h, w] logits, of `view`: what clicks refine.
            tracked: as for `Stills.answer`.
        """
        if self.stills is None or self.reader.picture(frame) is None:
            return None
        before = None if previous is None else Marked(previous, self._window(view))
        marked = self.stills.answer(frame, points, before, tracked)
        return marked if marked is not None and (marked.logits > 0).any() else None

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

"""What a pathway remembers, and which of it a frame reads. Records in, records out: nothing is computed here.

Only the latest reliable frames are ever read, so a pathway that keeps those, the frame before and the
prompted frames has lost nothing, however long the video.

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory bank.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

NO_BOUND = sys.maxsize
PROMPTED_LOGIT = 10.0  # a prompted frame ranks as clearly visible, whatever the decoder thought of it


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FrameMemory:
    """What is remembered of one frame. C: memory channels, D: hidden width, h w: feature size."""

    time: int  # of the frame, not the age; it counts upwards, whichever way the video is gone through
    mask_features: Tensor | None  # [1, C, h, w] bfloat16, on the storage device; None: too old to be read
    object_ptr: Tensor  # [1, D], on the compute device
    iou: float  # the decoder's own estimate in 0..1, not measured
    object_logit: float  # > 0: SAM 2 believes the object is visible
    kept_tokens: Tensor | None = None  # [layers, n] int64: what is read of it from now on; None: all tokens

    def __repr__(self) -> str:
        features = None if self.mask_features is None else list(self.mask_features.shape)
        return f"FrameMemory({self.time}, iou={self.iou:.2f}, logit={self.object_logit:.1f}, features={features})"

    def is_reliable(self, iou_threshold: float) -> bool:
        """Worth remembering: the object is there and the mask is believed to be good."""
        return self.iou > iou_threshold and self.object_logit > 0


@dataclass(frozen=True, slots=True)
class SpatialRead:
    """One spatial memory as it goes into memory attention."""

    memory: FrameMemory
    slot: int  # row of sam2's `maskmem_tpos_enc`: 0 is the previous frame's, the last row the prompted frames'
    prompted: bool = False
    whole: bool = True  # False: only its `kept_tokens`


@dataclass(frozen=True, slots=True)
class PointerRead:
    """One object pointer as it goes into memory attention."""

    memory: FrameMemory
    position: int  # in frames, or in ranks; sam2 divides it by the number of pointers - 1


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything one pathway attends to on one frame, in the order in which it is concatenated."""

    spatial: tuple[SpatialRead, ...]
    pointers: tuple[PointerRead, ...]
    modulation: tuple[float, float] = (1.0, 1.0)  # key weights of the least and the most visible memory
    sparse_share: float = 1.0  # of a memory's tokens, how many stay readable once it is no longer the newest

    @property
    def layout(self) -> tuple[tuple[bool, ...], int, float]:
        """Rows with the same layout can share one batch."""
        return tuple(read.whole for read in self.spatial), len(self.pointers), self.sparse_share

    @property
    def key(self) -> tuple:
        """Equal for readings of the same tensors in the same order, at the same positions and with the same weights."""
        spatial = []
        for each in self.spatial:
            memory = each.memory
            tensors = id(memory.mask_features), id(memory.kept_tokens)
            spatial.append((*tensors, memory.object_logit, each.slot, each.prompted, each.whole))
        pointers = [(id(each.memory.object_ptr), each.memory.object_logit, each.position) for each in self.pointers]
        return tuple(spatial), tuple(pointers), self.modulation, self.sparse_share

    @property
    def times(self) -> tuple[int, ...]:
        """Of the frames whose spatial memory is read."""
        return tuple(read.memory.time for read in self.spatial)


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRules:
    """How a bank is kept and read: sam2's sizes and SAM2Long's switches."""

    num_spatial: int  # N, sam2's num_maskmem - 1
    num_pointers: int  # M, prompted ones counted; sam2 bounds it by the length of the video
    use_pointers: bool = True
    pointers_from_past_only: bool = True  # sam2's only_obj_ptrs_in_the_past_for_eval
    signed_positions: bool = True  # sam2's use_signed_tpos_enc_to_obj_ptrs
    stride: int = 1  # sam2's memory_temporal_stride_for_eval, without object-aware selection
    iou_threshold: float = 0.3
    object_aware: bool = True
    max_prompted: int = 8  # prompted frames read at once; NO_BOUND: all of them
    modulation: tuple[float, float] = (1.0, 1.0)  # key weights of the least and the most visible memory
    sparse_share: float = 1.0  # below 1: a memory that is neither prompted nor the newest is read by its kept tokens


def remember(memories: Sequence[FrameMemory], new: FrameMemory, rules: BankRules) -> tuple[FrameMemory, ...]:
    """The bank after one more frame: only what some later frame can still read, oldest first."""
    grown = (*memories, new)
    return _trim_by_quality(grown, rules) if rules.object_aware else _trim_by_age(grown, rules)


def _trim_by_quality(memories: Sequence[FrameMemory], rules: BankRules) -> tuple[FrameMemory, ...]:
    *past, newest = memories
    reliable = [memory for memory in past if memory.is_reliable(rules.iou_threshold)]
    # The newest is always read once, reliable or not; it may not yet push another out.
    reliable = reliable[max(0, len(reliable) - (rules.num_pointers - 1)) :]
    first_whole = len(reliable) - rules.num_spatial
    return (*(_faded(memory) if i < first_whole else memory for i, memory in enumerate(reliable)), newest)


def _trim_by_age(memories: Sequence[FrameMemory], rules: BankRules) -> tuple[FrameMemory, ...]:
    newest = memories[-1].time
    kept = []
    for memory in memories:
        age = newest - memory.time
        readable = age == 0 or (memory.time % rules.stride == 0 and age <= rules.num_spatial * rules.stride)
        if readable:
            kept.append(memory)
        elif age < rules.num_pointers - 1:
            kept.append(_faded(memory))
    return tuple(kept)


def _faded(memory: FrameMemory) -> FrameMemory:
    """The same memory without its spatial part: only its pointer can still be read."""
    return memory if memory.mask_features is None else replace(memory, mask_features=None)


def keep_tokens(memories: Sequence[FrameMemory], tokens: Tensor | None) -> tuple[FrameMemory, ...]:
    """The bank once its newest memory has been read whole, and `tokens` [layers, n] turned out to matter."""
    if tokens is None or not memories:
        return tuple(memories)
    return (*memories[:-1], replace(memories[-1], kept_tokens=tokens))


def read(time: int, memories: Sequence[FrameMemory], prompted: Mapping[int, FrameMemory], rules: BankRules) -> Reading:
    """What a pathway attends to on a frame.

    Args:
        time: of the frame to be tracked.
        memories: the pathway's bank, oldest first; prompted frames are not in it.
        prompted: the prompted frames that may be seen from there, at least one, by time.
        rules: sizes and switches.
    """
    near = closest_prompted(time, prompted, rules.max_prompted)
    if rules.object_aware:
        selected = _select_by_quality(time, memories, rules)  # newest first
        spatial = tuple(SpatialRead(memory, rank) for rank, memory in enumerate(selected[: rules.num_spatial]))[::-1]
        # The reference leaves out the pointer of the oldest selected frame.
        pointers = tuple(PointerRead(memory, rank) for rank, memory in enumerate(selected[:-1], start=1))
    else:
        far = [memory for at, memory in prompted.items() if at not in near]
        spatial, pointers = _select_by_age(time, (*memories, *far), rules)
    if rules.sparse_share < 1:
        newest = memories[-1] if memories else None
        spatial = tuple(
            replace(read, whole=read.memory is newest or read.memory.kept_tokens is None) for read in spatial
        )
    if not rules.use_pointers:
        pointers = ()
    return Reading(
        spatial=(*(SpatialRead(memory, rules.num_spatial, prompted=True) for memory in near.values()), *spatial),
        pointers=(*_prompted_pointers(time, near.values(), rules), *pointers),
        modulation=rules.modulation,
        sparse_share=rules.sparse_share,
    )


def closest_prompted(time: int, prompted: Mapping[int, FrameMemory], limit: int) -> dict[int, FrameMemory]:
    """The prompted frames in the order of time: the first and those nearest to `time`, at most `limit`.

    The order makes the newest prompt the heaviest one: all of them count as equally visible, and
    equal memories are weighted in the order in which they come.
    """
    in_time = sorted(prompted)

    def nearness(at: int) -> tuple[int, int]:
        return abs(at - time), -at

    if len(in_time) > limit:
        first, *others = in_time
        # With room for one only, the nearest matters more than the first.
        ranked = [first, *sorted(others, key=nearness)] if limit > 1 else sorted(in_time, key=nearness)
        chosen = set(ranked[:limit])
        in_time = [at for at in in_time if at in chosen]
    return {at: prompted[at] for at in in_time}


def _prompted_pointers(time: int, near: Iterable[FrameMemory], rules: BankRules) -> tuple[PointerRead, ...]:
    if not rules.use_pointers:
        return ()
    pointers = []
    for memory in near:
        age = time - memory.time
        if age >= 0 or not rules.pointers_from_past_only:
            pointers.append(PointerRead(memory, age if rules.signed_positions else abs(age)))
    return tuple(pointers)


def _select_by_quality(time: int, memories: Sequence[FrameMemory], rules: BankRules) -> list[FrameMemory]:
    """The latest reliable memories, newest first; the frame before always among them, unless it is a prompted one."""
    reliable = [memory for memory in reversed(memories) if memory.is_reliable(rules.iou_threshold)]
    selected = reliable[: rules.num_pointers - 1]
    before = [memory for memory in memories[-1:] if memory.time == time - 1]
    return selected if before == selected[:1] else [*before, *selected]


def _select_by_age(
    time: int, memories: Sequence[FrameMemory], rules: BankRules
) -> tuple[tuple[SpatialRead, ...], tuple[PointerRead, ...]]:
    """SAM 2's own rule: by distance in time, whatever the quality."""
    at = {memory.time: memory for memory in memories}
    newest = (time - 2) // rules.stride  # in strides; the frame before is read in any case
    wanted = [time - 1, *((newest - steps) * rules.stride for steps in range(rules.num_spatial - 1))]
    spatial = [SpatialRead(at[t], slot) for slot, t in enumerate(wanted) if t in at and at[t].mask_features is not None]
    pointers = [PointerRead(at[time - age], age) for age in range(1, rules.num_pointers) if time - age in at]
    return tuple(reversed(spatial)), tuple(pointers)

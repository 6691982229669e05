"""What is trained when: clip length, scenarios and sizes by the position in the curriculum, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

OBJECTS = 2  # tracked rows per clip; they share one image encoding


@dataclass(frozen=True, kw_only=True)
class Stage:
    until: float  # position; in a run from the start the share of the minutes spent
    mix: dict[str, int]  # scenario -> weight; "first" is `easy` with large objects and nothing else
    clips: int
    frames: int  # of a clip
    chunk: int  # frames per backward pass; memories are carried over, detached
    truth: float  # chance that a memory is made from the true mask
    rescue: float = 0.0  # the same for an object that is lost: or the rest of a long clip would teach nothing
    strides: tuple[int, ...] = (1,)
    upsample: int = 1  # of the logits before the loss
    size: int = 128  # of the frames; 64 is four times as fast, and what is learned there carries over
    corrections: float = 0.0  # chance per frame of a second pass with a click on the error
    every_mask: float = 0.0  # share of the mask loss that the best one does not have to itself: see losses.py
    prompt_weight: float = 0.3  # of the first frame against the others
    zoom: int = 100  # of the objects, in percent: at 64 px they fill more of the frame


ALL = {"easy": 3, "occlusion": 3, "twins": 2, "reappear": 3, "crowd": 2, "long": 2}
STAGES = (
    Stage(until=0.07, mix={"first": 1}, clips=24, frames=3, chunk=3, truth=0.7, size=64, zoom=130,
          every_mask=0.7, prompt_weight=1.0),
    Stage(until=0.17, mix={"first": 2, "easy": 3, "twins": 1, "occlusion": 1}, clips=20, frames=4, chunk=4, truth=0.3,
          size=64, zoom=150, every_mask=0.2, prompt_weight=0.6),
    Stage(until=0.30, mix=ALL, clips=16, frames=8, chunk=8, truth=0.1, strides=(1, 1, 2), size=64, zoom=150,
          every_mask=0.1, prompt_weight=0.5),
    Stage(until=0.42, mix=ALL, clips=16, frames=16, chunk=8, truth=0.0, strides=(1, 1, 2, 3), size=64, zoom=150,
          prompt_weight=0.5, corrections=0.03),
    Stage(until=0.515, mix=ALL, clips=8, frames=8, chunk=8, truth=0.0, strides=(1, 1, 2), prompt_weight=0.5,
          corrections=0.05),
    Stage(until=0.72, mix=ALL, clips=16, frames=32, chunk=8, truth=0.0, strides=(1, 1, 2, 3), size=64, zoom=150,
          corrections=0.02),
    Stage(until=0.72, mix=ALL, clips=6, frames=24, chunk=8, truth=0.0, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02),
    Stage(until=0.86, mix=ALL, clips=6, frames=40, chunk=8, truth=0.0, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02),
    Stage(until=0.94, mix=ALL, clips=6, frames=40, chunk=8, truth=0.0, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02, every_mask=0.5),
    Stage(until=1.01, mix=ALL, clips=8, frames=40, chunk=8, truth=0.0, rescue=0.15, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02, every_mask=0.9, prompt_weight=1.0),
)  # fmt: skip


def stage_at(position: float, turn: int = 0) -> Stage:
    """The stage that this position is in; stages that end together take turns."""
    until = min(s.until for s in STAGES if position < s.until)
    group = [s for s in STAGES if s.until == until]
    return group[turn % len(group)]

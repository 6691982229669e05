"""What is trained when: clip length, sources and sizes by the position in the curriculum, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass, field

SIZE = 384  # of the frames that the model is made for: `image_size` of sam2long/models/nano.yaml
OBJECTS = 2  # tracked rows per clip; they share one image encoding
SCENARIOS = {"easy": 1, "occlusion": 3, "twins": 3, "reappear": 3, "crowd": 2, "long": 2}


@dataclass(frozen=True, kw_only=True)
class Stage:
    stills: bool = False  # prompts on still pictures, `clips` of them, instead of clips: nano.stills
    until: float  # position; in a run from the start the share of the minutes spent
    mix: dict[str, int] = field(default_factory=lambda: {"cutouts": 4, "whole": 4, "generated": 2})  # source -> weight
    clips: int
    frames: int  # of a clip
    chunk: int  # frames per backward pass; memories are carried over, detached
    truth: float = 0.0  # chance that a memory is made from the true mask
    rescue: float = 0.0  # the same for an object that is lost: or the rest of a long clip would teach nothing
    size: int = 256  # of the frames; 128 is four times as fast, and what is learned there carries over
    hard: bool = True  # things in the way, look-alikes, absences, bending
    trunk: bool = False  # whether the trunk learns too, at a tenth of the rate
    upsample: int = 1  # of the logits before the loss
    corrections: float = 0.0  # chance per frame of one to three clicks on the error
    every_mask: float = 0.0  # share of the mask loss that the best one does not have to itself: see losses.py
    prompt_weight: float = 1.0  # of all prompts against the tracked frames
    kinds: tuple[int, int, int] = (5, 3, 2)  # weights of mask, box and click as the first prompt
    scenarios: dict[str, int] = field(default_factory=lambda: dict(SCENARIOS))  # of generated clips -> weight
    strides: tuple[int, ...] = (1, 1, 2, 3)  # of generated clips
    zoom: int = 100  # of the objects of generated clips, in percent


STILLS = {"stills": True, "clips": 12, "frames": 1, "chunk": 1, "every_mask": 0.1}
TRACKING = {"clips": 4, "chunk": 8, "kinds": (9, 1, 0), "corrections": 0.08, "trunk": True, "upsample": 2}
# The trunk learns in one step of three: it is half of a step's cost, and learns slowly.
# Memory is learned on small frames, prompts on still pictures; then both take turns. In the end
# clips alone: MobileSAM answers the prompts, and what it marks counts as a mask.
STAGES = (
    Stage(until=0.05, mix={"cutouts": 1}, clips=16, frames=3, chunk=3, truth=0.6, size=128, hard=False, every_mask=0.7),
    Stage(until=0.10, mix={"cutouts": 1}, clips=12, frames=5, chunk=5, truth=0.2, size=128, every_mask=0.4,
          prompt_weight=0.6, corrections=0.02),
    Stage(until=0.15, clips=8, frames=8, chunk=8, truth=0.05, size=128, every_mask=0.3, corrections=0.03),
    Stage(until=0.25, **STILLS | {"clips": 24}, size=256),
    *(2 * [Stage(until=0.60, **STILLS, size=SIZE)]),
    Stage(until=0.60, **STILLS, size=SIZE, trunk=True),
    Stage(until=0.80, **TRACKING, size=256, frames=8, rescue=0.1, every_mask=0.3),
    *(2 * [Stage(until=0.80, **STILLS, size=SIZE)]),
    Stage(until=0.80, **STILLS, size=SIZE, trunk=True),
    Stage(until=0.90, **TRACKING, size=256, frames=16, rescue=0.15, every_mask=0.5),
    Stage(until=0.90, **TRACKING, size=SIZE, frames=16, rescue=0.15, every_mask=0.5),
    Stage(until=1.01, **TRACKING, size=SIZE, frames=16, rescue=0.15, every_mask=0.5),
)  # fmt: skip


def stage_at(position: float, turn: int = 0, photos: bool = True) -> Stage:
    """The stage that this position is in; stages that end together take turns. Stills need photographs."""
    stages = [s for s in STAGES if photos or not s.stills]
    until = min(s.until for s in stages if position < s.until)
    group = [s for s in stages if s.until == until]
    return group[turn % len(group)]

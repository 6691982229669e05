"""What is trained when: clip length, sources and sizes by the position in the curriculum, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass, field

OBJECTS = 2  # tracked rows per clip; they share one image encoding
SCENARIOS = {"easy": 1, "occlusion": 3, "twins": 3, "reappear": 3, "crowd": 2, "long": 2}


@dataclass(frozen=True, kw_only=True)
class Stage:
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
    corrections: float = 0.0  # chance per frame of a second pass with a click on the error
    every_mask: float = 0.0  # share of the mask loss that the best one does not have to itself: see losses.py
    prompts: float = 0.0  # chance per later frame of a box or a click on it, beside the tracking
    prompt_weight: float = 1.0  # of all prompts against the tracked frames
    kinds: tuple[int, int, int] = (5, 3, 2)  # weights of mask, box and click as the first prompt
    scenarios: dict[str, int] = field(default_factory=lambda: dict(SCENARIOS))  # of generated clips -> weight
    strides: tuple[int, ...] = (1, 1, 2, 3)  # of generated clips
    zoom: int = 100  # of the objects of generated clips, in percent


# Prompts alone, on whole photographs: one frame to mark and one to carry it to. Takes turns with longer clips.
PROMPTS = {"mix": {"whole": 1}, "clips": 16, "frames": 2, "chunk": 2, "kinds": (1, 4, 4), "prompts": 1.0,
           "prompt_weight": 2.0, "every_mask": 0.3}  # fmt: skip
TRACKING = {"clips": 4, "chunk": 8, "prompts": 0.3, "corrections": 0.03}
STAGES = (
    Stage(until=0.05, mix={"cutouts": 1}, clips=16, frames=3, chunk=3, truth=0.6, size=128, hard=False, every_mask=0.7),
    Stage(until=0.15, mix={"cutouts": 1}, clips=12, frames=5, chunk=5, truth=0.2, size=128, every_mask=0.4,
          prompt_weight=0.6, corrections=0.02),
    Stage(until=0.25, clips=8, frames=8, chunk=8, truth=0.05, size=128, every_mask=0.3, corrections=0.03),
    *(3 * [Stage(until=0.45, **TRACKING, frames=8, rescue=0.1, every_mask=0.3)]),
    Stage(until=0.45, **PROMPTS),
    *(2 * [Stage(until=0.70, **TRACKING, frames=16, rescue=0.15, every_mask=0.5, trunk=True)]),
    Stage(until=0.70, **PROMPTS, trunk=True),
    *(2 * [Stage(until=1.01, **TRACKING, frames=24, rescue=0.15, every_mask=0.7, trunk=True)]),
    Stage(until=1.01, **PROMPTS, trunk=True),
)  # fmt: skip


def stage_at(position: float, turn: int = 0) -> Stage:
    """The stage that this position is in; stages that end together take turns."""
    until = min(s.until for s in STAGES if position < s.until)
    group = [s for s in STAGES if s.until == until]
    return group[turn % len(group)]

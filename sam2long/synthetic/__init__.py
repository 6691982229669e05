"""Endless, seeded, exact: generated videos for training, tests, the demo and the built-in benchmark.

from sam2long.synthetic import generate

for frame in generate("reappear", seed=7, num_frames=300):
    frame.image, frame.ids, frame.visible
"""

from __future__ import annotations

from sam2long.synthetic.arith import Bits, Curve
from sam2long.synthetic.scenarios import SCENARIOS, SYNTHLONG, SynthVideo, generate
from sam2long.synthetic.scene import Frame, Knobs, Scene

__all__ = [
    "SCENARIOS", "SYNTHLONG", "Bits", "Curve", "Frame", "Knobs", "Scene", "SynthVideo", "generate",
]  # fmt: skip

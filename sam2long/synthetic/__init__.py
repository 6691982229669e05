"""Endless, seeded, exact: generated videos for training, tests, the demo and the built-in benchmark."""

from __future__ import annotations

from sam2long.errors import ConfigError
from sam2long.synthetic.scenarios import SCENARIOS, SYNTHLONG, SynthVideo, generate
from sam2long.synthetic.scene import Frame, Knobs, Scene

__all__ = ["SCENARIOS", "SYNTHLONG", "Frame", "Knobs", "Scene", "SynthVideo", "generate", "ConfigError"]

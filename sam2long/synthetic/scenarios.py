"""The named scenarios, `generate`, and the fixed list of videos that make the built-in benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from sam2long.errors import ConfigError
from sam2long.synthetic.scene import Knobs, Scene

SCENARIOS: dict[str, Knobs] = {
    "easy": Knobs(targets_on_top=True),
    "occlusion": Knobs(visits=(25, 50), bars=(0, 2), strangers=(0, 2)),
    "twins": Knobs(twins=(1, 3), twin_chance=70, strangers=(0, 1)),
    "reappear": Knobs(exits=(35, 70), away=(25, 60), strangers=(1, 2)),
    "crowd": Knobs(size=(110, 190), strangers=(4, 7), twins=(0, 2), twin_chance=30),
    "long": Knobs(
        exits=(60, 120), away=(25, 90), visits=(50, 100), hidden=(6, 25), twins=(0, 2), twin_chance=30,
        strangers=(1, 3), bars=(0, 1), cuts=(120, 260), light=260, pace=(24, 60), blur=40,
    ),
}
DEFAULT_OBJECTS = {"easy": 1, "occlusion": 1, "twins": 2, "reappear": 1, "crowd": 4, "long": 2}
SPLITS = ("train", "heldout")


def generate(
    scenario: str, seed: int, num_frames: int = 300, size: int | tuple[int, int] = 128,
    num_objects: int | None = None, *, split: str = "heldout", knobs: Knobs | None = None,
) -> Scene:
    if scenario not in SCENARIOS:
        raise ConfigError(f"unknown scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    height, width = (size, size) if isinstance(size, int) else size
    key = (SPLITS.index(split), list(SCENARIOS).index(scenario), seed)
    return Scene(
        scenario, knobs or SCENARIOS[scenario], seed, num_frames, height, width,
        num_objects or DEFAULT_OBJECTS[scenario], split, key,
    )


@dataclass(frozen=True, slots=True)
class SynthVideo:
    name: str
    scenario: str
    seed: int
    num_frames: int
    num_objects: int

    def scene(self, size: int | tuple[int, int] = 128) -> Scene:
        return generate(self.scenario, self.seed, self.num_frames, size, self.num_objects)


_COUNTS = {"easy": 6, "occlusion": 8, "twins": 8, "reappear": 8, "crowd": 4, "long": 6}
SYNTHLONG: tuple[SynthVideo, ...] = tuple(
    SynthVideo(f"{s}_{i:02d}", s, 5000 + i, 600 if s == "long" else 300, DEFAULT_OBJECTS[s])
    for s, n in _COUNTS.items()
    for i in range(n)
)

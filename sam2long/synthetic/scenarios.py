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
        exits=(60, 120),
        away=(25, 90),
        visits=(50, 100),
        hidden=(6, 25),
        twins=(0, 2),
        twin_chance=30,
        strangers=(1, 3),
        bars=(0, 1),
        cuts=(120, 260),
        light=260,
        pace=(24, 60),
        blur=40,
    ),
}
DEFAULT_OBJECTS = {"easy": 1, "occlusion": 1, "twins": 2, "reappear": 1, "crowd": 4, "long": 2}
SPLITS = ("train", "heldout")
MOST_OBJECTS = 12  # more do not fit side by side on frame 0


def generate(
    scenario: str,
    seed: int,
    num_frames: int = 300,
    size: int | tuple[int, int] = 128,
    num_objects: int | None = None,
    *,
    split: str = "heldout",
    knobs: Knobs | None = None,
) -> Scene:
    """A video with exact masks, made frame by frame as it is read. One seed gives the same pixels on every machine.

    Args:
        scenario: a key of `SCENARIOS`.
        seed: 0 or more; another seed, another video.
        num_frames: the length; nothing is kept, so 10,000 frames cost no memory.
        size: pixels, one number for a square or (height, width). Another size shows a similar scene, not the same.
        num_objects: how many objects are tracked (ids 1..N); None takes what suits the scenario.
        split: "train" is for training the nano model only: its shapes and textures never occur in "heldout".
        knobs: in place of the scenario's own difficulty.
    Raises:
        ConfigError: an unknown name, or a number out of range.
    """
    if scenario not in SCENARIOS:
        raise ConfigError(f"unknown scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    height, width = (size, size) if isinstance(size, int) else size
    objects = DEFAULT_OBJECTS[scenario] if num_objects is None else num_objects
    for name, value, low, high in (
        ("seed", seed, 0, 2**63),
        ("num_frames", num_frames, 1, 10**7),
        ("size", min(height, width), 32, 4096),
        ("size", max(height, width), 32, 4096),
        ("num_objects", objects, 1, MOST_OBJECTS),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}, expected {low} to {high}")
    key = (SPLITS.index(split), list(SCENARIOS).index(scenario), seed)
    return Scene(
        scenario=scenario, knobs=knobs or SCENARIOS[scenario], seed=seed, num_frames=num_frames, height=height,
        width=width, num_objects=objects, split=split, key=key,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SynthVideo:
    """One entry of the built-in benchmark: everything that `generate` needs."""

    name: str
    scenario: str
    seed: int
    num_frames: int
    num_objects: int

    def scene(self, size: int | tuple[int, int] = 128) -> Scene:
        return generate(self.scenario, self.seed, self.num_frames, size, self.num_objects)


# The built-in benchmark `synthlong`. Fixed: a change here changes every published score.
_COUNTS = {"easy": 6, "occlusion": 8, "twins": 8, "reappear": 8, "crowd": 4, "long": 6}
SYNTHLONG: tuple[SynthVideo, ...] = tuple(
    SynthVideo(f"{s}_{i:02d}", s, 5000 + i, 600 if s == "long" else 300, DEFAULT_OBJECTS[s])
    for s, n in _COUNTS.items()
    for i in range(n)
)

"""davis-long: DAVIS 2016 made long, so that it asks what long video asks. Say that the object is gone; find it again.

Each sequence is shown forward, then comes a stretch of another sequence (the object is absent), then it is shown
backward, another absence, and forward again. Frames and masks are links to DAVIS's own files; on the absences the
mask is empty.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eval import layouts
from eval.datasets.base import image_size
from eval.datasets.davis import Davis16
from sam2long.errors import DataError
from sam2long.folder import replacing_folder

SEED = 7
LONGEST = 60  # frames of a sequence that are shown
ABSENCE = (20, 40)  # frames, shortest and longest
SEGMENTS = "segments.json"


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames of one DAVIS sequence, in order; `step` is 1 or -1."""

    sequence: str
    first: int
    count: int
    step: int

    def frames(self) -> range:
        return range(self.first, self.first + self.step * self.count, self.step)


def plan(lengths: dict[str, int], sizes: dict[str, tuple[int, int]]) -> dict[str, list[Segment]]:
    """What each long video is made of: the same for the same DAVIS.

    Args:
        lengths: frames per sequence.
        sizes: (height, width) per sequence; an absence is filled from sequences of the same size.
    Raises:
        DataError: a sequence has fewer than two others of its size.
    """
    rng = np.random.default_rng(SEED)
    planned = {}
    for name in sorted(lengths):
        others = [n for n in sorted(lengths) if n != name and sizes[n] == sizes[name]]
        if len(others) < 2:
            h, w = sizes[name]
            raise DataError(
                f"{name} has {len(others)} other sequences of its size {w}x{h}; davis-long needs two to fill its "
                "absences: give the whole of DAVIS 2016 val"
            )
        fillers = [str(n) for n in rng.choice(others, 2, replace=False)]
        gap = int(rng.integers(ABSENCE[0], ABSENCE[1] + 1))
        shown = min(lengths[name], LONGEST)
        away = [Segment(filler, 0, min(gap, lengths[filler]), 1) for filler in fillers]
        forward, backward = Segment(name, 0, shown, 1), Segment(name, shown - 1, shown, -1)
        planned[name] = [forward, away[0], backward, away[1], forward]
    return planned


def write(davis: Path, root: Path) -> dict[str, list[Segment]]:
    """Make davis-long of the DAVIS in folder `davis` in the new folder `root`, whole or not at all.

    Raises:
        DataError: `davis` is not a whole DAVIS 2016 val, or there is something in `root` already.
    """
    source = Davis16(split="val", name="davis16-val", root=davis)
    if faults := source.check():
        raise DataError(f"davis-long is made of DAVIS 2016 val, and {faults[0]}")
    root = layouts.new_root(root)
    images = {name: source.images(name) for name in source.names()}
    planned = plan({n: len(files) for n, files in images.items()}, {n: image_size(f[0]) for n, f in images.items()})
    with replacing_folder(root) as partial:
        for name, segments in planned.items():
            shots, masks = (partial / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
            shots.mkdir(parents=True)
            masks.mkdir(parents=True)
            empty = Image.fromarray(np.zeros(image_size(images[name][0]), np.uint8))
            frames = [(segment.sequence, images[segment.sequence][t]) for segment in segments for t in segment.frames()]
            for number, (sequence, image) in enumerate(frames):
                _link(image, shots / f"{number:05d}{image.suffix}")
                mask = masks / f"{number:05d}.png"
                if sequence == name:
                    _link(source.annotations_root / name / f"{image.stem}.png", mask)
                else:
                    empty.save(mask)
        listed = partial / "ImageSets" / "2016" / "val.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("".join(f"{name}\n" for name in planned))
        content = {name: [asdict(segment) for segment in segments] for name, segments in planned.items()}
        (partial / SEGMENTS).write_text(json.dumps(content, indent=1) + "\n")
    return planned


def _link(source: Path, to: Path) -> None:
    """A hard link where the file system can, a copy elsewhere."""
    try:
        os.link(source.resolve(), to)
    except OSError:
        shutil.copyfile(source, to)

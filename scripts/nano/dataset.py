"""Composed clips as a data set that `python -m eval` and scripts/ablate.py read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval import layouts
from nano.curriculum import OBJECTS
from nano.photos import Photo
from nano.scoring import COMPOSED, held_out_clips
from sam2long.synthetic import Frame

IDS = tuple(range(1, OBJECTS + 1))


def write_composed(photos: Sequence[Photo], root: Path, clips: int, frames: int, seed: int) -> Path:
    """Write so many clips of each source, with exact masks, in DAVIS 2017's layout.

    Args:
        photos: those that were held out of training.
        root: new folder.
    """
    made = []
    for source in COMPOSED:
        for number, (images, ids) in enumerate(held_out_clips(source, clips, frames, photos, seed)):
            shown = [
                Frame(index=at, image=image, ids=labels, visible={o: bool((labels == o).any()) for o in IDS})
                for at, (image, labels) in enumerate(zip(images, ids, strict=True))
            ]
            made.append(layouts.Clip(name=f"{source}_{number:02d}", frames=shown, objects=IDS))
    return layouts.write("davis17-val", root, made)

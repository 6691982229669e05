"""The objects of a data set as clips: images and the true mask of every frame."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from eval import pngs
from eval.datasets.base import Dataset
from eval.interact.corrected import Clip
from eval.one_video import opened
from sam2long.errors import DataError

LEAST_SHOWN = 3  # frames with the object: the first prompt, and something to choose from


def clips(dataset: Dataset, video: str) -> Iterator[Clip]:
    """One clip for each object of a video that is seen on a few frames; named video, or video/object.

    Raises:
        DataError: a frame without a true mask.
    """
    with opened(dataset, video) as (found, prompts, folder):
        images = np.stack(
            [np.asarray(Image.open(folder / f"{t:05d}.jpg").convert("RGB")) for t in range(len(found.frame_names))]
        )
    ids = _ids(dataset, video)
    if len(ids) != len(images):
        raise DataError(
            f"{video} of {dataset.name} has {len(images)} frames and true masks of {len(ids)}; corrections need a true "
            "mask on every frame, as DAVIS and synthlong have them"
        )
    for prompt in prompts:
        marked = ids[prompt.frame][prompt.mask][0]  # DAVIS 2016 marks its object with 255
        truth = [frame == marked for frame in ids]
        if sum(mask.any() for mask in truth) >= LEAST_SHOWN:
            yield Clip(video if len(prompts) == 1 else f"{video}/{prompt.label}", images, truth)


def _ids(dataset: Dataset, video: str) -> list[np.ndarray]:
    if dataset.gt() is not None:
        return [pngs.read_ids(path) for path in dataset.annotation_files(video)]
    one = copy.copy(dataset)
    one._chosen = [video]
    with tempfile.TemporaryDirectory() as folder:
        one.export_gt(Path(folder))
        return [pngs.read_ids(path) for path in sorted((Path(folder) / video).glob("*.png"))]

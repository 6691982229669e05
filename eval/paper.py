"""What of the paper's tables can be run again: the data sets, where they may lie, and what scored them there.

Source: SAM2Long, arXiv 2410.16268v3, Tables 1, 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eval import datasets
from eval.datasets.base import Dataset
from sam2long.errors import DataError

MODELS = ("sam2.1-tiny", "sam2.1-small", "sam2.1-base-plus", "sam2.1-large")
DEPTH = 3  # folders below the given one in which data sets are looked for
_INSIDE = re.compile(r"jpegimages|annotations|imagesets|^\.", re.IGNORECASE)  # of a data set; nothing lies deeper


@dataclass(frozen=True)
class Evaluator:
    """How the paper scored a data set."""

    protocol: str
    said: str  # the evaluator and the table that it stands for
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One data set of the paper."""

    dataset: str
    called: str  # what a path to it says, as a regular expression; not asked where `marked` is there
    evaluators: tuple[Evaluator, ...]
    not_called: str = r"(?!)"
    marked: str | None = None  # a file by which it is known whatever it is called

    def lies_in(self, folder: Path, path: str) -> bool:
        """Whether `folder` is its root. path: of the folder, as far as its names may say something."""
        named = re.search(self.called, path, re.IGNORECASE) and not re.search(self.not_called, path, re.IGNORECASE)
        if not (named if self.marked is None else (folder / self.marked).is_file()):
            return False
        return datasets.open_dataset(self.dataset, folder).images_root.is_dir()


_SAV = Evaluator("sav", "SA-V's evaluator, Table 1")
PARTS = (
    Part("sav-val", "", (_SAV,), marked="sav_val.txt"),
    Part("sav-test", "", (_SAV,), marked="sav_test.txt"),
    Part(
        "lvos-v2",
        r"lvos",
        (
            Evaluator("sav", "SA-V's evaluator on LVOS's masks, Table 1"),
            Evaluator("lvos", "LVOS's own evaluator, Table 3"),
        ),
        not_called=r"v1|test",
    ),
    Part("mose-v1", r"mose", (Evaluator("davis", "MOSE's server, Table 4"),), not_called=r"v2"),
    Part("vost", r"vost", (Evaluator("sav", "SA-V's evaluator, 255 set to 0, Table 4", {"gt255_to_0": True}),)),
    Part("pumavos", r"puma", (Evaluator("sav", "SA-V's evaluator, Table 4"),)),
)
NAMES = tuple(part.dataset for part in PARTS)


@dataclass(frozen=True)
class Found:
    """What of the paper is at hand."""

    here: dict[str, Dataset]  # by name, in the paper's order
    missing: dict[str, str]  # name -> one sentence


def find(data: Path, wanted: tuple[str, ...] = NAMES) -> Found:
    """Look for the data sets in `data` and the folders below it.

    Raises:
        DataError: `data` is not a folder.
    """
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; expected the one in which the data sets lie: check --data")
    here, missing = {}, {}
    folders = list(_folders(data, DEPTH))
    for part in PARTS:
        if part.dataset not in wanted:
            continue
        root = next((folder for folder in folders if part.lies_in(folder, _said(folder, data))), None)
        if root is None:
            source = datasets.open_dataset(part.dataset, data).source
            missing[part.dataset] = f"not found in {data}; get it from {source}"
            continue
        dataset = datasets.open_dataset(part.dataset, root)
        if faults := dataset.check():
            missing[part.dataset] = f"{len(faults)} faults in {root}, the first: {faults[0]}"
        else:
            here[part.dataset] = dataset
    return Found(here, missing)


def part_of(dataset: str) -> Part:
    return next(part for part in PARTS if part.dataset == dataset)


def _said(folder: Path, data: Path) -> str:
    return data.resolve().name if folder == data else folder.relative_to(data).as_posix()


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, the nearest first."""
    level = [folder]
    for _ in range(depth + 1):
        yield from level
        level = [below for each in level for below in _below(each)]


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not _INSIDE.search(each.name))
    except PermissionError:
        return []

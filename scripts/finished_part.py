"""What an unfinished set of ablations can say already: the settings and the videos that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from ablation_tables import Table

from eval import one_video, runner, score
from eval.datasets.base import Dataset
from eval.report import Run
from sam2long.errors import ConfigError

ENOUGH = 0.5  # a setting with less than this share of the videos of the most finished one is left out


@dataclass(frozen=True)
class PartOfRun(Run):
    """The finished videos that this run has in common with others; scored apart: the run keeps its own."""

    videos: tuple[str, ...] = ()

    @property
    def scores_folder(self) -> Path:
        return self.folder.parents[1] / "part" / self.folder.name

    @cached_property
    def manifest(self) -> dict:
        whole = Run.manifest.func(self)
        return whole | {"dataset": whole["dataset"] | {"videos": list(self.videos)}}

    @cached_property
    def records(self) -> pd.DataFrame:
        whole = Run.records.func(self)
        return whole[whole["video"].isin(self.videos)]


def find(dataset: Dataset, folders: Iterable[Path]) -> dict[Path, PartOfRun]:
    """The runs that are far enough, on the videos that all of them have finished.

    Raises:
        ConfigError: there is nothing to report.
    """
    done = {
        folder: {name for name in dataset.names() if one_video.record_path(folder, name).exists()} for folder in folders
    }
    most = max(map(len, done.values()), default=0)
    done = {folder: videos for folder, videos in done.items() if videos and len(videos) >= ENOUGH * most}
    common = set.intersection(*done.values()) if done else set()
    if not common:
        raise ConfigError("no video is finished for all settings yet; run without --report-only first")
    videos = tuple(name for name in dataset.names() if name in common)
    return {folder: PartOfRun(folder, dataset.protocol, videos) for folder in done}


def score_all(dataset: Dataset, runs: Iterable[PartOfRun]) -> None:
    for run in runs:
        gt = runner.gt_of(dataset, run.folder)
        predictions = one_video.predictions_folder(run.folder)
        scores = score.evaluate(run.protocol, gt, predictions, processes=1, videos=run.videos)
        score.write(scores, run.scores_folder)


def present(tables: list[Table], folder_of, runs: dict[Path, PartOfRun]) -> tuple[list[Table], list[str]]:
    """The tables without the variants that are not there, and what was left out.

    Raises:
        ConfigError: no table is left with something to compare.
    """
    kept, missing = [], []
    for table in tables:
        variants = tuple(v for v in table.variants if folder_of(v.spec) in runs)
        missing += [f"{table.title}: {v.name}" for v in table.variants if v not in variants]
        left = replace(table, variants=variants)
        reference_is_there = table.reference is None or table.reference in [v.name for v in variants]
        if len(variants) > 1 and reference_is_there:
            kept.append(left)
        else:
            missing += [f"{table.title}: {v.name}" for v in variants]
    if not kept:
        raise ConfigError(f"nothing can be compared yet; not far enough: {'; '.join(missing)}")
    return kept, missing

"""`python -m eval reproduce`: the paper's table by one command, for whoever has the weights and the data.

The folder holds a run for each data set, model and method (see runner.py), zips for the servers that keep their truth,
and reproduce.md and reproduce.csv, written anew after every run. A run that was stopped goes on when it is started
again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval import bootstrap, one_video, pack, paper, pngs, report, runner, score
from eval.datasets.base import Dataset
from eval.paper import Evaluator
from eval.settings import baseline_of
from eval.trackers import TrackerSpec
from sam2long.errors import DataError, ModelError
from sam2long.weights import CHECKPOINTS

COLUMNS = ("data set", "scored by", "model", "method", "ours", "95 % interval", "paper", "difference", "verdict")
SAM2, LONG, GAIN = "SAM 2", "SAM2Long", "gain"
NOT_RUN = "not run yet"
TABLES = ("scores.json", "global.csv", "objects.csv", "videos.csv", "frames.csv")


@dataclass(frozen=True)
class Line:
    """One line of the table: J&F in percent, or what there is instead."""

    dataset: str
    said: str
    model: str
    method: str
    ours: bootstrap.Interval | None
    paper: float | None
    instead: str = NOT_RUN  # where there is no figure of ours

    @property
    def verdict(self) -> str:
        if self.ours is None:
            return self.instead
        if self.paper is None:
            return "the paper has no figure"
        if self.ours.videos < bootstrap.FEW_VIDEOS:
            return "too few videos to say"
        if self.ours.low <= self.paper <= self.ours.high:
            return "within the noise"
        return "below the paper" if self.ours.mean < self.paper else "above the paper"

    def cells(self) -> list[str]:
        how = "+.1f" if self.method == GAIN else ".1f"
        figure = interval = known = apart = "–"
        if self.ours is not None:
            figure, interval = f"{self.ours.mean:{how}}", f"[{self.ours.low:{how}}, {self.ours.high:{how}}]"
        if self.paper is not None:
            known = f"{self.paper:{how}}"
        if None not in (self.ours, self.paper):
            apart = f"{self.ours.mean - self.paper:+.1f}"
        return [
            self.dataset, self.said, self.model, self.method, figure, interval, known, apart, self.verdict
        ]  # fmt: skip


@dataclass(frozen=True)
class Reproduction:
    """What is wanted, and where it goes.

    Args:
        found: the data sets.
        models: short names of models, whose weights are here.
        out: the folder of all runs.
        spec: device, precision and so on of every run.
        run: of a data set, a spec and a folder: runner.run with the engine that was chosen.
    """

    found: paper.Found
    models: Sequence[str]
    out: Path
    spec: TrackerSpec
    run: Callable[[Dataset, TrackerSpec, Path], runner.RunResult]

    def all(self) -> bool:
        """Run, score and pack all that is not done yet; whether no video failed."""
        failures: dict[Path, str] = {}
        self.write(failures)
        for model in self.models:
            for dataset in self.found.here.values():
                long = replace(self.spec, model=model)
                for method, spec in ((SAM2, baseline_of(long)), (LONG, long)):
                    folder = self.folder(dataset.name, model, method)
                    result = self.run(dataset, spec, folder)
                    if result.failed:
                        failures[folder] = f"{len(result.failed)} videos failed; start it again"
                    else:
                        self._finish(dataset, folder, anew=bool(result.done))
                    self.write(failures)
        return not failures

    def folder(self, dataset: str, model: str, method: str) -> Path:
        return self.out / dataset / f"{model}-{'sam2' if method == SAM2 else 'sam2long'}"

    def _finish(self, dataset: Dataset, folder: Path, anew: bool) -> None:
        """Score a complete run, or pack it for the server."""
        gt = dataset.gt()
        if gt is None:
            if anew or not _zip(folder).exists():
                pack.pack(dataset.name, dataset.root, one_video.predictions_folder(folder), _zip(folder))
            return
        for evaluator in paper.part_of(dataset.name).evaluators:
            there = folder / "scores" / evaluator.protocol
            if anew or not all((there / name).exists() for name in TABLES):
                predictions = one_video.predictions_folder(folder)
                score.write(score.evaluate(evaluator.protocol, gt, predictions, **evaluator.options), there)

    # ---- the table ---------------------------------------------------------------------------------------------

    def write(self, failures: dict[Path, str]) -> None:
        lines = [line.cells() for line in self.lines(failures)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
        pngs.write_whole(self.out / "reproduce.csv", text.getvalue().encode())
        parts = [
            "# SAM2Long's tables, run again",
            report.markdown_table(list(COLUMNS), lines),
            "J&F in percent. The interval is a bootstrap over videos (10,000 resamples). For a score it says how far "
            "other videos would have moved it, which is much; for a gain, the difference of the two methods on the "
            "same videos, it is the sharp one. A figure of the paper within the interval is within the noise.",
            *(f"**{name}**: {why}." for name, why in self.found.missing.items()),
        ]
        pngs.write_whole(self.out / "reproduce.md", ("\n\n".join(parts) + "\n").encode())

    def lines(self, failures: dict[Path, str]) -> Iterator[Line]:
        for dataset in self.found.here.values():
            for evaluator in paper.part_of(dataset.name).evaluators:
                for model in self.models:
                    yield from self._three(dataset, evaluator, model, failures)

    def _three(self, dataset: Dataset, evaluator: Evaluator, model: str, failures: dict[Path, str]) -> Iterator[Line]:
        known = [_published(dataset.name, evaluator.protocol, model, method) for method in (SAM2, LONG)]
        tables = []
        for method, figure in zip((SAM2, LONG), known, strict=True):
            folder = self.folder(dataset.name, model, method)
            table, instead = None, failures.get(folder, NOT_RUN)
            if folder not in failures and (folder / "scores" / evaluator.protocol / TABLES[-1]).exists():
                table = _objects(folder, evaluator.protocol)
            elif folder not in failures and _zip(folder).exists():
                instead = f"upload {_zip(folder).relative_to(self.out)}"
            tables.append(table)
            ours = table and bootstrap.interval(*table)
            yield Line(dataset.name, evaluator.said, model, method, ours, figure, instead)
        gain = None if None in known else known[1] - known[0]
        yield Line(dataset.name, evaluator.said, model, GAIN, _gain(*tables), gain, "when both have figures")


Table = tuple[dict[tuple[str, str], float], dict[tuple[str, str], str]]  # objects' J&F in percent, and their groups


def _objects(folder: Path, protocol: str) -> Table:
    objects = report.Run(folder, protocol).objects
    groups = objects["group"] if "group" in objects.columns else [""] * len(objects)
    keys = list(zip(objects["video"], objects["object"], strict=True))
    return dict(zip(keys, objects["score"], strict=True)), dict(zip(keys, groups, strict=True))


def _gain(plain: Table | None, long: Table | None) -> bootstrap.Interval | None:
    if plain is None or long is None:
        return None
    both = plain[0].keys() & long[0].keys()
    return bootstrap.interval({key: long[0][key] - plain[0][key] for key in both}, {key: long[1][key] for key in both})


def _published(dataset: str, protocol: str, model: str, method: str) -> float | None:
    """The paper's own J&F."""
    name = method if method == LONG else "SAM 2.1" if model.startswith("sam2.1") else "SAM 2"
    figures = [
        each["J&F"]
        for each in report.published(dataset, protocol)
        if (each["method"], each["model"]) == (name, model) and each["source"].startswith("SAM2Long")
    ]
    return figures[0] if figures else None


def _zip(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def reproduce(
    data: Path, out: Path, *, models: Sequence[str] = paper.MODELS, wanted: Sequence[str] = paper.NAMES,
    spec: TrackerSpec | None = None, engine: str = "local", address: str | None = None, workers: int | None = None,
    say: Callable[[str], None] = print,
) -> bool:  # fmt: skip
    """Run what of the paper's tables can be run with what is in `data`; whether no video failed.

    Raises:
        DataError: none of the data sets is there, or a folder of `out` holds another run.
        ModelError: none of the models has weights here, and none could be downloaded.
    """
    found = paper.find(data, tuple(wanted))
    for name, dataset in found.here.items():
        say(f"{name}: {len(dataset.names())} videos in {dataset.root}")
    for name, why in found.missing.items():
        say(f"{name}: {why}")
    if not found.here:
        raise DataError(f"none of {', '.join(wanted)} is complete in {data}; get one of them first")
    usable = []
    for model in models:
        try:
            if model in CHECKPOINTS:
                CHECKPOINTS[model].fetch()
            usable.append(model)
        except ModelError as error:
            say(f"{model}: {error}")
    if not usable:
        raise ModelError(f"none of {', '.join(models)} has weights here")

    def run(dataset: Dataset, wanted: TrackerSpec, folder: Path) -> runner.RunResult:
        say(f"{folder.relative_to(out)}")
        return runner.run(dataset, wanted, folder, engine=engine, address=address, workers=workers)

    whole = Reproduction(found, usable, out, spec or TrackerSpec(), run)
    well = whole.all()
    say((out / "reproduce.md").read_text(encoding="utf-8"))
    return well

"""The ablation tables, on any data set: one CSV and one figure per table of configs/ablation, and a page of all.

    python scripts/ablate.py --dataset synthlong --out runs/ablations --workers 2
    python scripts/ablate.py --dataset sav-val --root DIR --model sam2-large --tables pathways --out runs/sav

Equal settings are run once, whichever tables they stand in, and all settings of one model go over each video together
(eval/sweep.py), so there is no speed in the tables. Stop it when you like and start it again: finished videos stay.
`--videos`, `--size` and `--frames` make a smaller set of synthlong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TQDM_DISABLE", "1")

import ablation_page
import finished_part
import headline
from ablation_tables import TABLES, read_table

from eval import cli, one_video, runner, score, sweep
from eval.datasets.base import Dataset
from eval.report import Run
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError, DataError, Sam2LongError
from sam2long.runs import processes


def run_folder(out: Path, spec: TrackerSpec) -> Path:
    key = hashlib.sha256(json.dumps(spec.as_dict(), sort_keys=True).encode()).hexdigest()[:12]
    return out / "runs" / key


def run_all(dataset, specs: list[TrackerSpec], out: Path, args: argparse.Namespace) -> dict[Path, Run]:
    """Every different spec, each in its folder; settings of one model go over each video together."""
    folders = {run_folder(out, spec): spec for spec in specs}
    groups: dict[str, dict[Path, TrackerSpec]] = {}
    for folder, spec in folders.items():
        together = spec.method == "sam2long" and args.engine == "local" and not args.no_sweep
        groups.setdefault(repr(sweep.of_one_model(spec)) if together else str(folder), {})[folder] = spec
    stale = []
    for number, group in enumerate(groups.values(), start=1):
        print(f"{number} of {len(groups)}: {len(group)} settings, {next(iter(group.values())).method}", flush=True)
        if len(group) > 1:
            results = sweep.run(dataset, group, workers=args.workers or 1)
        else:
            folder, spec = next(iter(group.items()))
            results = {folder: runner.run(dataset, spec, folder, engine=args.engine, address=args.address,
                                          workers=args.workers)}  # fmt: skip
        for folder, result in results.items():
            if result.failed:
                raise ConfigError(
                    f"{len(result.failed)} videos failed in {folder}: {', '.join(result.failed)}; see failures.json"
                )
            if result.done or not (Run(folder, dataset.protocol).scores_folder / "scores.json").exists():
                stale.append(str(folder))
    for folder, _, why in processes.each(_Score(dataset), stale, args.workers or 1):
        if why is not None:
            raise ConfigError(f"{folder} could not be scored: {why}")
    return {folder: Run(folder, dataset.protocol) for folder in folders}


@dataclass
class _Score:
    """Scores one run folder after the other."""

    dataset: Dataset

    def start(self) -> None:
        pass

    def run(self, folder: str, on_frame: Callable[[], None]) -> None:
        gt = runner.gt_of(self.dataset, Path(folder))
        if gt is None:
            raise DataError(
                f"{self.dataset.name} has no ground truth here, so nothing can be compared; use another data set"
            )
        options = score.restrict(self.dataset, gt)
        protocol = self.dataset.protocol
        scores = score.evaluate(protocol, gt, one_video.predictions_folder(Path(folder)), processes=1, **options)
        score.write(scores, Run(Path(folder), protocol).scores_folder)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_dataset_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tables", help="names of files in configs/ablation; default: all")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N settings of each table")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", metavar="FILE")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--address")
    parser.add_argument("--workers", type=int, help="processes; default: one, with ray one per GPU")
    parser.add_argument("--no-sweep", action="store_true", help="one run after the other, as eval run does it")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing: report the videos and settings that are finished"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write the page there, not into --out")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write the headline figures, which the demo prints"
    )
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table of all summaries beside it there")
    args = parser.parse_args(argv)
    try:
        return ablate(args)
    except Sam2LongError as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.EXIT_BAD_INPUT


def ablate(args: argparse.Namespace) -> int:
    dataset = cli.open_from(args)
    base = TrackerSpec(model=args.model, checkpoint=args.checkpoint, device=args.device, dtype=args.dtype)
    names = (
        args.tables.split(",")
        if args.tables
        else sorted((p.stem for p in TABLES.glob("*.yaml")), key=lambda name: (name != headline.TABLE, name))
    )
    if args.summary and (args.videos or args.frames or args.size):
        raise ConfigError("--summary is for a whole data set; leave --videos, --frames and --size out")
    if args.readme and not args.summary:
        raise ConfigError("--readme shows the summaries; name this data set's with --summary FILE")
    if args.summary and headline.TABLE not in names:
        raise ConfigError(f"--summary takes the table {headline.TABLE}; name it in --tables too")
    if args.first is not None and args.first < 2:
        raise ConfigError(f"--first is {args.first}; expected 2 or more, so that there is something to compare")
    tables = [read_table(TABLES / f"{n}.yaml", base) for n in names]
    tables = [replace(table, variants=table.variants[: args.first]) for table in tables]
    specs = [v.spec for table in tables for v in table.variants]
    missing: list[str] = []
    if args.report_only:
        found = finished_part.find(dataset, {run_folder(args.out, spec) for spec in specs})
        if args.summary and any(run.videos != tuple(dataset.names()) for run in found.values()):
            raise ConfigError(f"--summary is for the whole of {dataset.name}, and not all videos are finished")
        tables, missing = finished_part.present(tables, lambda spec: run_folder(args.out, spec), found)
        finished_part.score_all(dataset, found.values())
    else:
        found = run_all(dataset, specs, args.out, args)
    by_table = {table.name: {v.name: found[run_folder(args.out, v.spec)] for v in table.variants} for table in tables}
    command = _command()
    print(ablation_page.write(args.docs or args.out, tables, by_table, command=command, missing=missing))
    if args.summary:
        (table,) = (table for table in tables if table.name == headline.TABLE)
        headline.write_summary(args.summary, table, by_table[table.name], command)
    if args.readme:
        headline.write_readme(args.readme, args.summary.parent)
    return 0


def _command() -> str:
    return " ".join(["python", "scripts/ablate.py", *map(shlex.quote, sys.argv[1:])])


if __name__ == "__main__":
    sys.exit(main())

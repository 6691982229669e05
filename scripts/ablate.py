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
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TQDM_DISABLE", "1")

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from eval import bootstrap, cli, runner, score, settings, sweep
from eval.report import Run, markdown_table
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError, Sam2LongError

TABLES = Path(__file__).parents[1] / "configs" / "ablation"
_NOT_SETTINGS = ("name", "method", "published", "scale")


@dataclass(frozen=True)
class Variant:
    name: str
    spec: TrackerSpec
    x: float | None
    published: tuple


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    x: str | None
    variants: tuple[Variant, ...]
    published_columns: tuple[str, ...]
    published_source: str


def trained_size(model: str) -> int:
    """`image_size` in the model's YAML."""
    import sam2

    from sam2long.weights import CHECKPOINTS

    name = CHECKPOINTS[model].config if model in CHECKPOINTS else model
    path = Path(name) if Path(name).is_file() else Path(sam2.__path__[0]) / name
    return int(settings.read_yaml(path)["model"].get("image_size", 1024))


def read_table(path: Path, base: TrackerSpec) -> Table:
    content = settings.read_yaml(path)
    variants = []
    for entry in content["variants"]:
        method = entry.get("method", base.method)
        changes = {k: v for k, v in entry.items() if k not in _NOT_SETTINGS}
        spec = replace(base, method=method, sam2long={} if method == "sam2" else base.sam2long | changes)
        if "scale" in entry and entry["scale"] != 1:
            size = round(trained_size(base.model) * entry["scale"] / 16) * 16
            spec = replace(spec, overrides=(*base.overrides, f"++model.image_size={size}"))
        if spec.method == "sam2long":
            spec = replace(spec, sam2long=_only_changed(spec.sam2long))
        x = entry.get(content.get("x"), None) if content.get("x") else None
        variants.append(Variant(str(entry["name"]), spec, x, tuple(entry.get("published", ()))))
    published = content.get("published") or {}
    return Table(
        path.stem,
        content["title"],
        content.get("x"),
        tuple(variants),
        tuple(published.get("columns", ())),
        published.get("source", ""),
    )


def _only_changed(values: dict) -> dict:
    """Without what equals the defaults, so that equal settings are equal runs."""
    from sam2long import Sam2LongConfig

    defaults = Sam2LongConfig().to_dict()
    return {k: v for k, v in Sam2LongConfig.from_mapping(values).to_dict().items() if v != defaults[k]}


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
    runs = {}
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
            runs[folder] = scored(dataset, folder, anew=bool(result.done))
    return runs


def scored(dataset, folder: Path, anew: bool) -> Run:
    run = Run(folder, dataset.protocol)
    if anew or not (run.scores_folder / "scores.json").exists():
        gt = runner.gt_of(dataset, folder)
        if gt is None:
            raise ConfigError(
                f"{dataset.name} has no ground truth here, so nothing can be compared; use another data set"
            )
        scores = score.evaluate(dataset.protocol, gt, runner.predictions_folder(folder), **score.restrict(dataset, gt))
        score.write(scores, run.scores_folder)
    return run


def tree_shares(run: Run) -> dict[str, float]:
    """Percent of the object-frames tracked that were uncertain, and that had more than one different pathway."""
    counts = [tree for tree in run.records.get("tree", []) if isinstance(tree, dict)]
    tracked = sum(tree["tracked"] for tree in counts)
    return {f"{what}_percent": 100 * sum(tree[what] for tree in counts) / tracked if tracked else float("nan")
            for what in ("uncertain", "diverged")}  # fmt: skip


def table_rows(table: Table, runs: dict[str, Run]) -> pd.DataFrame:
    default = next(
        (v for v in table.variants if not v.spec.sam2long and v.spec.method == "sam2long" and not v.spec.overrides),
        None,
    )
    rows = []
    for v in table.variants:
        run = runs[v.name]
        row = {"variant": v.name, "x": v.x, "score": run.objects["score"].mean()}
        if default is not None and v is not default:
            d = bootstrap.paired(runs[default.name].by_object(), run.by_object())
            row |= {"minus_default": d.mean, "low": d.low, "high": d.high}
        row |= tree_shares(run)
        row |= dict(zip((f"published: {c}" for c in table.published_columns), v.published, strict=False))
        rows.append(row)
    return pd.DataFrame(rows)


def figure(table: Table, rows: pd.DataFrame, path: Path) -> None:
    fig, axis = plt.subplots(figsize=(6.5, 4))
    numeric = rows[rows["x"].notna()]
    if table.x and len(numeric) > 1:
        axis.plot(numeric["x"].astype(float), numeric["score"], marker="o", label="here")
        for extra in rows[rows["x"].isna()].itertuples():
            axis.axhline(extra.score, linestyle="--", color="grey", label=extra.variant)
        for column in [c for c in rows.columns if c.startswith("published")]:
            axis.plot(numeric["x"].astype(float), numeric[column], marker=".", linestyle=":", label=column)
        axis.set_xlabel(table.x)
        axis.legend(fontsize=7)
    else:
        axis.bar(rows["variant"], rows["score"])
        axis.tick_params(axis="x", labelrotation=20, labelsize=8)
        axis.set_ylim(max(0, rows["score"].min() - 5), min(100, rows["score"].max() + 3))
    axis.set(ylabel="mean score over objects", title=table.title)
    fig.tight_layout()
    fig.savefig(path, dpi=120)
    plt.close(fig)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_dataset_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tables", help="names of files in configs/ablation; default: all")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", metavar="FILE")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--address")
    parser.add_argument("--workers", type=int, help="processes; default: one, with ray one per GPU")
    parser.add_argument("--no-sweep", action="store_true", help="one run after the other, as eval run does it")
    args = parser.parse_args(argv)
    try:
        return ablate(args)
    except Sam2LongError as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.EXIT_BAD_INPUT


def ablate(args: argparse.Namespace) -> int:
    dataset = cli.open_from(args)
    base = TrackerSpec(model=args.model, checkpoint=args.checkpoint, device=args.device, dtype=args.dtype)
    names = args.tables.split(",") if args.tables else sorted(p.stem for p in TABLES.glob("*.yaml"))
    tables = [read_table(TABLES / f"{n}.yaml", base) for n in names]
    started, parts = time.monotonic(), [f"# Ablations on {dataset.name}, model {Path(args.model).name}"]
    found = run_all(dataset, [v.spec for table in tables for v in table.variants], args.out, args)
    for table in tables:
        runs = {v.name: found[run_folder(args.out, v.spec)] for v in table.variants}
        rows = table_rows(table, runs)
        args.out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(args.out / f"{table.name}.csv", index=False)
        figure(table, rows, args.out / f"{table.name}.png")
        columns = [c for c in rows.columns if c != "x"]
        shown = markdown_table(columns, [[_cell(r[c]) for c in columns] for _, r in rows.iterrows()])
        parts += [f"## {table.title}", shown, f"![{table.title}]({table.name}.png)"]
        if table.published_source:
            parts.append(
                f"Published: {table.published_source} (another model and other data; only the shape compares)."
            )
        print(f"{table.title}: {args.out / table.name}.csv", flush=True)
    minutes = (time.monotonic() - started) / 60
    count = len(dataset.names())
    parts.append(
        f"{count} videos per run. This call took {minutes:.1f} minutes; runs that were there before cost nothing."
    )
    (args.out / "ablations.md").write_text("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables, figures and the page of the ablations, from scored run folders."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from ablation_tables import Table

from eval import bootstrap, pngs
from eval.report import Run, markdown_table

FILE = "ablations.md"
Runs = dict[str, Run]  # by variant


def rows_of(table: Table, runs: Runs) -> pd.DataFrame:
    """One row per variant: score in percent, difference to the reference with its interval, what the tree did."""
    reference = table.compared_with()
    rows = []
    for v in table.variants:
        run = runs[v.name]
        row = {"variant": v.name, "x": v.x, "score": run.objects["score"].mean()}
        if reference is not None:
            d = bootstrap.paired(runs[reference.name].by_object(), run.by_object())
            row |= {"difference": d.mean, "low": d.low, "high": d.high} if v is not reference else {}
        row |= tree_shares(run)
        row |= dict(zip((f"published: {c}" for c in table.published_columns), v.published, strict=False))
        rows.append(row)
    return pd.DataFrame(rows)


def tree_shares(run: Run) -> dict[str, float]:
    """Percent of the object-frames tracked that were uncertain, and that had more than one different pathway."""
    counts = [tree for tree in run.records.get("tree", []) if isinstance(tree, dict)]
    tracked = sum(tree["tracked"] for tree in counts)
    return {
        f"{what} %": 100 * sum(tree[what] for tree in counts) / tracked if tracked else float("nan")
        for what in ("uncertain", "diverged")
    }


def markdown(table: Table, rows: pd.DataFrame) -> str:
    """The table as text; differences and their intervals are one column."""
    reference = table.compared_with()
    header = ["variant", "J&F"]
    if reference is not None:
        header.append(f"minus {_named(table)} [95 %]")
    published = [c for c in rows.columns if c.startswith("published")]
    header += ["uncertain %", "diverged %", *published]
    lines = []
    for row in rows.to_dict("records"):
        cells = [row["variant"], f"{row['score']:.2f}"]
        if reference is not None:
            cells.append(_interval(row))
        lines.append([*cells, *(_number(row[c], 1) for c in ("uncertain %", "diverged %", *published))])
    return markdown_table(header, lines)


def _named(table: Table) -> str:
    name = table.compared_with().name
    return name if table.reference else f"{name} (the default)"


def _interval(row: dict) -> str:
    if row.get("difference") is None or row["difference"] != row["difference"]:
        return "-"
    return f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _number(value: object, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def figure(table: Table, rows: pd.DataFrame, path: Path) -> None:
    """Differences to the reference with their intervals; published ones, of another model and other data, likewise."""
    fig, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    reference = table.compared_with()
    numeric = rows[rows["x"].notna()]
    if reference is None:
        axis.barh(rows["variant"], rows["score"])
        axis.set(xlabel="J&F, mean over objects")
    elif table.x and len(numeric) > 1:
        _curve(axis, numeric, reference)
        axis.set(xlabel=table.x, ylabel=f"J&F minus that of {_named(table)}")
        axis.set_xticks(sorted(set(numeric["x"].astype(float))))
        axis.axhline(0, color="grey", lw=0.6)
        axis.legend(fontsize=7)
    else:
        others = rows[rows["difference"].notna()][::-1]
        off = [others["difference"] - others["low"], others["high"] - others["difference"]]
        axis.errorbar(others["difference"], others["variant"], xerr=off, fmt="o", capsize=3)
        axis.axvline(0, color="grey", lw=0.6)
        axis.margins(y=0.15)
        axis.set_xlabel(f"J&F minus that of {_named(table)}, 95 % interval over videos", fontsize=8, loc="right")
    axis.set_title(table.title)
    fig.savefig(path, dpi=90)
    plt.close(fig)


def _curve(axis, numeric: pd.DataFrame, reference) -> None:
    """Score against a setting, ours with intervals."""
    x, y = numeric["x"].astype(float), numeric["difference"].fillna(0.0)
    off = [y - numeric["low"].fillna(0.0), numeric["high"].fillna(0.0) - y]
    axis.errorbar(x, y, yerr=off, marker="o", capsize=3, label="here, 95 % interval over videos")
    for column in [c for c in numeric.columns if c.startswith("published")]:
        known = numeric[numeric[column].notna()]
        base = known[known["variant"] == reference.name][column]
        if len(base):
            axis.plot(known["x"].astype(float), known[column] - base.iloc[0], marker=".", ls=":", label=column)


def write(out: Path, tables: list[Table], runs: dict[str, Runs], *, command: str, missing: list[str]) -> Path:
    """ablations.md beside a folder `ablations` of one CSV and one figure per table. missing: what was not run."""
    folder = out / "ablations"
    folder.mkdir(parents=True, exist_ok=True)
    every = {run.folder: run for each in runs.values() for run in each.values()}
    any_run = next(iter(every.values()))
    dataset = any_run.manifest["dataset"]
    parts = [
        f"# Ablations on {dataset['name']}, model {Path(any_run.manifest['tracker']['model']).name}",
        provenance(list(every.values()), command),
        "J&F is the mean over objects, in percent. Differences are paired, their 95 % intervals a bootstrap over "
        "videos. Uncertain: object-frames on which no pathway was sure of presence or absence; diverged: those with "
        "more than one different pathway after them.",
    ]
    for table in tables:
        rows = rows_of(table, runs[table.name])
        rows.to_csv(folder / f"{table.name}.csv", index=False)
        figure(table, rows, folder / f"{table.name}.png")
        parts += [f"## {table.title}", markdown(table, rows), f"![{table.title}](ablations/{table.name}.png)"]
        if table.published_source:
            parts.append(f"Published: {table.published_source} (another model, other data: only the shape compares).")
    if missing:
        parts.append(f"Not run, or not far enough to be compared: {'; '.join(missing)}.")
    path = out / FILE
    pngs.write_whole(path, ("\n\n".join(parts) + "\n").encode())
    return path


def provenance(runs: list[Run], command: str) -> str:
    """Command, videos, weights, commit, machine and time: what a measured number needs beside it."""
    first = runs[0].manifest
    dataset = first["dataset"]
    size = [f"{k} {dataset[k]}" for k in ("size", "frames") if dataset.get(k)]
    return (
        f"`{command}`: {len(dataset['videos'])} videos{', ' if size else ''}{', '.join(size)}; "
        f"weights sha256 {_all(runs, 'checkpoint_sha256', 12)}; commit {_all(runs, 'commit', 12)}; "
        f"sam2 {first['versions']['sam2']}, torch {first['versions']['torch']}; {_all(runs, 'machine')}. {took(runs)}"
    )


def _all(runs: list[Run], key: str, length: int | None = None) -> str:
    return ", ".join(sorted({str(run.manifest.get(key))[:length] for run in runs}))


def took(runs: list[Run]) -> str:
    """How long tracking took; settings that went over a video together share its time."""
    alone = 0.0
    together: dict[tuple, float] = {}
    for run in runs:
        records = run.records
        for r in records.to_dict("records"):
            if r.get("settings", 1) > 1:
                together[r["video"], r["seconds"]] = r["seconds"]
            else:
                alone += r["seconds"]
    shared = sum(together.values())
    return (
        f"Tracking took {(alone + shared) / 60:.0f} process-minutes: "
        f"{shared / 60:.0f} for the settings that went over the videos together, {alone / 60:.0f} for the others."
    )

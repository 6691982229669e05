"""SAM 2 and SAM2Long on whole data sets: a summary of each, for the demo, and one table of all, for the README."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import ablation_page
from ablation_tables import Table

from eval import bootstrap, presence
from eval.report import Run, markdown_table
from sam2long.atomic import replacing, write_json
from sam2long.errors import ConfigError

TABLE = "headline"
BEGIN, END = "<!-- results: written by scripts/ablate.py --readme -->", "<!-- /results -->"
ORDER = ("davis16-val", "davis-long", "synthlong")  # of the columns; others come after


def write_summary(path: Path, table: Table, runs: dict[str, Run], command: str) -> None:
    """What `sam2long demo` prints and the README shows of one data set; see sam2long/models/figures.py."""
    plain = next(v.name for v in table.variants if v.spec.method == "sam2")
    ours = next(v.name for v in table.variants if v.spec.method == "sam2long" and not v.spec.sam2long)
    first = runs[ours].manifest
    rows = ablation_page.rows_of(table, runs).round(2)
    write_json(
        path,
        {
            "dataset": first["dataset"]["name"],
            "videos": len(first["dataset"]["videos"]),
            "protocol": first["dataset"]["protocol"],
            "methods": {"SAM 2": _scores(runs[plain]), "SAM2Long": _scores(runs[ours])},
            "difference": _rounded(bootstrap.paired(runs[plain].by_object(), runs[ours].by_object())),
            "variants": json.loads(rows.drop(columns="x").to_json(orient="records")),
            "weights_sha256": first["checkpoint_sha256"],
            "command": command,
            "commit": first["commit"],
            "machine": first.get("machine"),
            "date": datetime.date.today().isoformat(),
        },
    )


def _scores(run: Run) -> dict:
    """Mean over objects in percent, its interval by resampling videos, and what the run says of absences."""
    mean = bootstrap.paired(dict.fromkeys(run.by_object(), 0.0), run.by_object())
    logits = presence.read_logits(run.folder, run.manifest["dataset"]["videos"])
    known = presence.figures(run.frames, logits) or {}
    absences = {name: round(value, 3) for name, value in known.items() if value == value}
    return {"J&F": round(mean.mean, 2), "interval": _rounded(mean)["interval"]} | (
        {"absences": absences} if known else {}
    )


def _rounded(d: bootstrap.Difference) -> dict:
    return {"mean": round(d.mean, 2), "interval": [round(d.low, 2), round(d.high, 2)]}


def write_readme(path: Path, folder: Path) -> None:
    """Put one table of all summaries in `folder`, and where they come from, between the two markers.

    Raises:
        ConfigError: the README is not there or has no markers, or the summaries are of different weights.
    """
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ConfigError(f"{path} has no place for the table; expected the lines {BEGIN!r} and {END!r}, once each")
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    found.sort(key=lambda s: (ORDER.index(s["dataset"]) if s["dataset"] in ORDER else len(ORDER), s["dataset"]))
    if len({s["weights_sha256"] for s in found}) > 1:
        names = ", ".join(s["dataset"] for s in found)
        raise ConfigError(f"the summaries of {names} in {folder} are of different weights; measure them all again")
    by_variant = [{row["variant"]: row for row in s["variants"]} for s in found]
    names = list(dict.fromkeys(name for rows in by_variant for name in rows))
    lines = [[name, *(_cell(rows.get(name)) for rows in by_variant)] for name in names]
    header = ["J&F, difference to SAM 2 [95 %]", *(f"{s['dataset']} ({s['videos']} videos)" for s in found)]
    provenance = "; ".join(f"{s['dataset']} on commit {s['commit'][:7]}, {s['machine']}, {s['date']}" for s in found)
    first = found[0]
    source = f"Weights sha256 {first['weights_sha256'][:12]}; {provenance}. Command of the first: `{first['command']}`."
    parts = [BEGIN, markdown_table(header, lines), source, END]
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: "\n\n".join(parts), old, flags=re.DOTALL)
    with replacing(path) as partial:
        partial.write_text(new, encoding="utf-8")


def _cell(row: dict | None) -> str:
    if row is None:
        return "not run"
    if row.get("difference") is None:
        return f"{row['score']:.1f}"
    return f"{row['score']:.1f}, {row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"

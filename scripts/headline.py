"""The table of plain SAM 2 and SAM2Long for the README, and the figures that the demo prints, from scored runs."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ablation_page

from eval import bootstrap
from eval.report import Run
from sam2long.errors import ConfigError
from sam2long.export.atomic import replacing, write_json

if TYPE_CHECKING:
    from ablate import Table

TABLE = "headline"
BEGIN, END = "<!-- synthlong: written by scripts/ablate.py --readme -->", "<!-- /synthlong -->"


def write_readme(path: Path, table: Table, runs: dict[str, Run], command: str) -> None:
    """Put the table and where it comes from between the two markers.

    Raises:
        ConfigError: the file is not there or has no markers.
    """
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ConfigError(f"{path} has no place for the table; expected the lines {BEGIN!r} and {END!r}, once each")
    rows = ablation_page.rows_of(table, runs)
    dataset = next(iter(runs.values())).manifest["dataset"]["name"]
    parts = [
        BEGIN,
        f"Plain SAM 2 and SAM2Long on the same weights (the embedded nano model), data set {dataset}:",
        ablation_page.markdown(table, rows),
        ablation_page.provenance(list(runs.values()), command),
        END,
    ]
    new = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: "\n\n".join(parts), old, flags=re.DOTALL)
    with replacing(path) as partial:
        partial.write_text(new, encoding="utf-8")


def write_summary(path: Path, table: Table, runs: dict[str, Run], command: str) -> None:
    """What `sam2long demo` prints of the held-out set; see sam2long/heldout.py."""
    plain = next(v.name for v in table.variants if v.spec.method == "sam2")
    ours = next(v.name for v in table.variants if v.spec.method == "sam2long" and not v.spec.sam2long)
    first = runs[ours].manifest
    difference = bootstrap.paired(runs[plain].by_object(), runs[ours].by_object())
    write_json(
        path,
        {
            "dataset": first["dataset"]["name"],
            "videos": len(first["dataset"]["videos"]),
            "protocol": first["dataset"]["protocol"],
            "methods": {"SAM 2": _scores(runs[plain]), "SAM2Long": _scores(runs[ours])},
            "difference": _rounded(difference),
            "weights_sha256": first["checkpoint_sha256"],
            "command": command,
            "commit": first["commit"],
            "machine": first.get("machine"),
            "date": datetime.date.today().isoformat(),
        },
    )


def _scores(run: Run) -> dict:
    """Means over objects in percent, the interval of J&F by resampling videos."""
    mean = bootstrap.paired(dict.fromkeys(run.by_object(), 0.0), run.by_object())
    j, f = run.objects["J"].mean(), run.objects["F"].mean()
    return {"J&F": round(mean.mean, 2), "J": round(j, 2), "F": round(f, 2), "interval": _rounded(mean)["interval"]}


def _rounded(d: bootstrap.Difference) -> dict:
    return {"mean": round(d.mean, 2), "interval": [round(d.low, 2), round(d.high, 2)]}

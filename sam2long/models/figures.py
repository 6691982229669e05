"""What the embedded model reached on whole data sets: measured once per data set and kept beside the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "measured"


def sha256(path: Path) -> str:
    """Of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def lines(weights: Path, datasets: Sequence[str], folder: Path = FOLDER) -> list[str]:
    """The figures as sentences; when they belong to other weights than these, they say so.

    Args:
        weights: that the caller runs.
        datasets: names, each a file NAME.json in `folder`, written by scripts/ablate.py --summary.
    """
    said = []
    for name in datasets:
        file = folder / f"{name}.json"
        if not file.is_file():
            said.append(f"the mean over {name} has not been measured for these weights")
            continue
        measured = json.loads(file.read_text(encoding="utf-8"))
        whose = "" if measured["weights_sha256"] == sha256(weights) else ", with OTHER WEIGHTS than these"
        sam2, ours = (measured["methods"][method]["J&F"] for method in ("SAM 2", "SAM2Long"))
        low, high = measured["difference"]["interval"]
        said.append(
            f"mean over the {measured['videos']} videos of {name}{whose}: SAM 2 {sam2:.1f}, SAM2Long {ours:.1f}, "
            f"difference {measured['difference']['mean']:+.2f} [{low:+.2f}, {high:+.2f}] (J&F; 95 % by video)"
        )
    return said

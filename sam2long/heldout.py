"""What the embedded model reached on the built-in benchmark synthlong: measured once and kept beside the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FILE = Path(__file__).parent / "models" / "synthlong.json"


def sha256(path: Path) -> str:
    """Of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def lines(weights: Path, file: Path = FILE) -> list[str]:
    """The figures as sentences; when they belong to other weights than these, the first one says so.

    Args:
        weights: that the caller runs.
        file: written by scripts/headline.py.
    """
    if not file.is_file():
        return ["the mean over the held-out set synthlong has not been measured for these weights"]
    measured = json.loads(file.read_text(encoding="utf-8"))
    said = [f"mean over the {measured['videos']} held-out videos of synthlong (measured {measured['date']}):"]
    if measured["weights_sha256"] != sha256(weights):
        said = [
            "these are not the weights that the held-out set synthlong was measured with; "
            f"the figures of {measured['date']} belong to others:"
        ]
    for name, scores in measured["methods"].items():
        low, high = scores["interval"]
        j_and_f = f"J&F {scores['J&F']:.1f} [{low:.1f}, {high:.1f}]"
        said.append(f"{name:>9}: {j_and_f}, J {scores['J']:.1f}, F {scores['F']:.1f}")
    difference = measured["difference"]
    low, high = difference["interval"]
    said.append(f"SAM2Long minus SAM 2: {difference['mean']:+.2f} [{low:+.2f}, {high:+.2f}] (95 % intervals, by video)")
    return said

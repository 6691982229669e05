"""Large JSON files written piece by piece: the masks of a long video never lie in memory together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_json_stream(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object; members that are functions give an iterable, which becomes an array entry by entry.

    Functions are called in their order, one when the one before is used up.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        separator = "{\n"
        for key, value in content.items():
            file.write(f"{separator}{json.dumps(key)}: ")
            separator = ",\n"
            if callable(value):
                file.writelines(_array(value()))
            else:
                file.write(json.dumps(value))
        file.write("\n}\n")


def _array(entries: Iterable[Any]) -> Iterator[str]:
    separator = "[\n"
    for entry in entries:
        yield separator + json.dumps(entry, separators=(",", ":"))
        separator = ",\n"
    yield "[]" if separator == "[\n" else "\n]"

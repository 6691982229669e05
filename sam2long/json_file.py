"""JSON that others have written: whatever is wrong with it is one sentence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sam2long.errors import DataError, short


def read_json(path: Path, expected: str) -> Any:
    """What a JSON file says; UTF-8, also with a byte order mark, or UTF-16.

    Args:
        path: of the file. expected: what it should be, for the message.
    Raises:
        DataError: not there, not to be read, or no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; expected {expected}") from None
    return parse_json(data, str(path), expected)


def parse_json(data: bytes, what: str, expected: str) -> Any:
    """As `read_json`, of bytes. what: where they are from, for the message."""
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except RecursionError:
        reason = "its lists lie too deep in one another"
    except ValueError as error:
        reason = str(error).split(";")[0]
    raise DataError(f"{what} is not JSON ({reason}); expected {expected}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would take the last of two equal keys, and drop the other in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"it says {short(twice)} twice in one object")
    return found

"""The numbers that image files carry in their names, beside the frames' positions."""

from __future__ import annotations

import re
from collections.abc import Sequence


def number_in(stem: str) -> int | None:
    """The last number in a name, as in 00030 and shot_30; None where there is none."""
    digits = re.findall(r"[0-9]+", stem)
    return int(digits[-1]) if digits else None


def numbers_in(stems: Sequence[str]) -> list[int] | None:
    """The numbers of all names; None where one has none, or where they do not rise."""
    numbers = [number for stem in stems if (number := number_in(stem)) is not None]
    if len(numbers) < len(stems) or any(b <= a for a, b in zip(numbers, numbers[1:], strict=False)):
        return None
    return numbers


def gap(stems: Sequence[str]) -> str | None:
    """A sentence about numbers that are missing between names; None for evenly numbered ones, or none."""
    numbers = numbers_in(stems)
    if numbers is None or len(numbers) < 3:
        return None
    steps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    wide = [at for at, step in enumerate(steps) if step > min(steps)]
    if not wide:
        return None
    at = wide[0]
    more = f", and at {len(wide) - 1} more places" if len(wide) > 1 else ""
    return f"images are missing between {stems[at]} and {stems[at + 1]}{more}; frames are counted by position from 0"

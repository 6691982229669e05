"""Fonts for the objects' names, in whatever script they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.font_manager import FontEntry
    from PIL.ImageFont import FreeTypeFont, ImageFont

NO_LETTERS = "lastresort"  # has a box for every letter


def shown_names(labels: Mapping[int, str]) -> dict[int, str]:
    """Object id -> its name, or "object 7" where no font on this machine has its letters; "" stays."""
    return {
        obj_id: label if not label or is_plain(label) or font_file(label) else f"object {obj_id}"
        for obj_id, label in labels.items()
    }


def note_on_fonts(labels: Mapping[int, str]) -> str | None:
    """A sentence about the names that pictures cannot show; None when they can."""
    names = shown_names(labels)
    lacking = [label for obj_id, label in labels.items() if names[obj_id] != label]
    if not lacking:
        return None
    return (
        f"no font on this machine has the letters of {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}; "
        "pictures show object numbers instead. Install one that has them, e.g. from Noto, and all data files have the "
        "names anyway"
    )


@lru_cache(maxsize=256)
def font_of(text: str, size: int) -> FreeTypeFont | ImageFont:
    """A font of PIL for a text that `shown_names` gave. size: of the letters, in pixels."""
    from PIL import ImageFont

    path = None if is_plain(text) else font_file(text)
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def is_plain(text: str) -> bool:
    """Whether the fonts that PIL and matplotlib bring along have its letters: of PIL's, ASCII is all."""
    return all(char.isprintable() and ord(char) < 128 for char in text)


@lru_cache(maxsize=256)
def font_file(text: str) -> str | None:
    """A font file of this machine that has every letter of a text; upright and of normal weight where there is one."""
    from matplotlib.font_manager import fontManager

    needed = frozenset(ord(char) for char in text if unicodedata.category(char) not in ("Zs", "Mn", "Cf"))
    if any(unicodedata.category(chr(code)) in ("Cc", "Cs", "Cn") for code in needed):
        return None

    def plainness(entry: FontEntry) -> tuple[bool, bool, bool]:
        return entry.name != "DejaVu Sans", entry.style != "normal", entry.weight not in (400, "normal", "regular")

    for entry in sorted(fontManager.ttflist, key=plainness):
        if NO_LETTERS not in entry.name.lower().replace(" ", "") and needed <= _letters(entry.fname):
            return entry.fname
    return None


@cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # listed, and gone or broken
        return frozenset()

"""What objects may be called, by number and by name: one check for clicks, files, flags and projects."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from sam2long.errors import PromptError, short

MOST_ID = 2**31 - 1  # what other programs' files can hold
MOST_LETTERS = 80  # of a name

Key = int | str  # what a file calls an object


def check_id(value: Any, where: str = "object") -> int:
    """An object's number.

    Raises:
        PromptError: not an integer from 1 to 2**31 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_ID:
        raise PromptError(f"{where} is {short(value)}; expected the object's number, from 1 to {MOST_ID}")
    return value


def check_name(text: Any, where: str = "the label") -> str:
    """An object's name: on one line, without spaces around it.

    Raises:
        PromptError: not text, too long, or with characters that cannot be printed.
    """
    if not isinstance(text, str):
        raise PromptError(f"{where} is {short(text)}; expected the object's name as text")
    name = " ".join(text.split())
    if len(name) > MOST_LETTERS:
        raise PromptError(f"{where} has {len(name)} letters; expected {MOST_LETTERS} at most")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise PromptError(f"{where} {short(ascii(name))} is not text in UTF-8; write it anew")
    if name != printable(name):
        raise PromptError(f"{where} {short(ascii(name))} has characters that cannot be printed; leave them out")
    return name


def printable(text: str) -> str:
    """Text without what XML and screens cannot show: control characters, surrogates, what is no character."""
    return "".join(
        letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cs") and ord(letter) & 0xFFFE != 0xFFFE
    )


def read_key(value: Any, where: str) -> Key:
    """What a file calls an object: a number, also one written as text, or a name.

    Raises:
        PromptError: neither.
    """
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= len(str(MOST_ID)):
        value = int(value)
    if isinstance(value, str) and value.strip():
        return check_name(value, where)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_ID:
        raise PromptError(f"{where} is {short(value)}; expected the object's number, from 0 to {MOST_ID}")
    return value


def free_id(taken: Iterable[int]) -> int:
    """The number after the highest one, or the lowest that is free when there is none after it."""
    taken = set(taken)
    after = max(taken, default=0) + 1
    return after if after <= MOST_ID else next(number for number in range(1, len(taken) + 2) if number not in taken)


class ObjectNumbers:
    """Object ids for what files call their objects.

    Numbers stay, or are all moved on by one where one of them is 0, which means background in mask images. Names are
    numbered as they come, after the numbers.

    Args:
        keys: of all the files that are read together.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        keys = list(dict.fromkeys(keys))
        numbers = [key for key in keys if isinstance(key, int)]
        self._moved = 0 in numbers
        self._ids: dict[Key, int] = {number: number + self._moved for number in numbers}
        for key in keys:
            if key not in self._ids:
                self._ids[key] = free_id(self._ids.values())

    def of(self, key: Key) -> int:
        return self._ids[key]

    def called(self, key: Key) -> str:
        """What the file calls it, where that is not the object's number; else ""."""
        return "" if key == self._ids[key] else str(key)

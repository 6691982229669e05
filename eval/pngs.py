"""PNG masks and frame names: reading with one clear error per fault, writing atomically."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sam2long.atomic import replacing
from sam2long.errors import DataError

VOID = 255  # "ignore" in DAVIS and VOST annotations; an ordinary id to SA-V's evaluator and vos-benchmark
JPEG_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG")
_TRAILING_INTEGER = re.compile(r"(\d+)$")


def frame_number(stem: str) -> int | None:
    """The integer a frame's name ends in: '00012', 'frame00012' and 'frame_000012' are all 12; None without one."""
    found = _TRAILING_INTEGER.search(stem)
    return int(found.group(1)) if found else None


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected a PNG mask there") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a PNG ({error}); write or download the file again") from None
    return image


def read_ids(path: Path) -> np.ndarray:
    """[H, W] uint8 id map of a palette (P), greyscale (L) or bilevel (1) PNG."""
    image = _open(path)
    if image.mode not in ("P", "L", "1"):
        raise DataError(
            f"{path} has PNG mode {image.mode}; expected one 8-bit channel of object ids (mode P): save ids, "
            "not colours"
        )
    return np.array(image).astype(np.uint8, copy=False)  # bilevel: False and True are 0 and 1


def read_binary(path: Path) -> np.ndarray:
    """[H, W] uint8 0/1 of one object's PNG: whatever is above 0 is the object; more than two values are a fault."""
    ids = read_ids(path)
    lowest, highest = int(ids.min()), int(ids.max())
    if ((ids != lowest) & (ids != highest)).any():
        values = np.unique(ids)
        raise DataError(
            f"{path} holds {len(values)} values ({', '.join(map(str, values[:5]))} ...); expected one object's mask "
            "with at most two: save one PNG per object"
        )
    return np.minimum(ids, 1)


def png_stems(folder: Path) -> list[str]:
    """Names (without .png) of a folder's PNG files, hidden ones left out, sorted as text; empty when there is none."""
    if not folder.is_dir():
        return []
    found = (entry.name for entry in os.scandir(folder))
    return sorted(name[:-4] for name in found if name.endswith(".png") and not name.startswith("."))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders inside, sorted; hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def read_list(path: Path) -> list[str]:
    """Non-empty lines of a text file."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected a list of video names, one per line") from None
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} is no text file; expected one entry per line") from None
    return [line for line in lines if line]


def some(names: Iterable[object], most: int = 8) -> str:
    """'a, b, c and 7 more': enough names to act on, never a screenful."""
    names = [str(n) for n in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def names_in(text: str) -> list[str]:
    """The videos that --videos names: A,B or a file with one name per line.

    Raises:
        DataError: a path that is no file.
    """
    path = Path(text)
    if path.is_file() or path.suffix == ".txt" or len(path.parts) > 1:
        return read_list(path)
    return [name for part in text.split(",") if (name := part.strip())]


def write_whole(path: Path, content: bytes) -> None:
    """All of the file or nothing of it, also when the machine loses its power; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

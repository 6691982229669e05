"""A folder of results that appears whole or not at all, and that never takes foreign files away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam2long.errors import DataError, short
from sam2long.naming import printable

MANIFEST = "export.json"  # says which files of a folder are ours
RUN_FILES = frozenset(  # of `track`, `live` and `annotate`, which may write them later
    {"masks", "masks.jsonl", "overlay.mp4", "report.csv", "report.html", "timeline.png", "detections.jpg", "run.json",
     "prompts.json", "view.json"}
)  # fmt: skip
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier export, and that one too without `overwrite`.

    Raises:
        DataError: with what is in the way.
    """
    _check_name(folder.absolute())
    try:
        for path in (folder, *folder.absolute().parents):
            if path.exists() and not path.is_dir():
                raise DataError(f"{path} is a file; choose a folder for the export")
        if not folder.exists():
            return
    except OSError as error:  # a name that is too long
        raise DataError(f"{short(str(folder))} cannot be a folder ({error.strerror}); choose another name") from None
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not files:
        return
    foreign = sorted(files - _own_files(folder))
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise DataError(f"{folder} holds files that no export wrote ({foreign[0]}{more}); choose another folder")
    if not overwrite:
        raise DataError(f"{folder} holds an export already; overwrite it, or choose another folder")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to instead; it takes the place of `folder` at the end, or goes when there is an exception."""
    missing = [parent for parent in folder.parents if not parent.exists()]  # nearest first
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for parent in missing:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _check_name(folder: Path) -> None:
    """Refuse names that mean something else: to a run, whose own files they are, or to Windows."""
    chain = [*reversed(folder.parents), folder]
    for parent, inside in zip(chain, chain[1:], strict=False):
        name = inside.name
        if name.split(".")[0].lower() in DEVICES or name != name.rstrip(". ") or printable(name) != name:
            raise DataError(f"{short(name)} is no name for a folder on every system; choose another one")
        is_run = any((parent / file).exists() for file in ("run.json", "masks.jsonl", "prompts.json"))
        if is_run and (name.startswith(".") or name.lower() in RUN_FILES):
            raise DataError(f"{name} in {parent} is for the run's own files; choose another folder, like export")


def _own_files(folder: Path) -> set[str]:
    try:
        return {MANIFEST, *json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()

"""What a run was: enough to repeat it, and to refuse to go on with something else in the same folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

from eval import machine, pngs
from eval.trackers import TrackerSpec, checkpoint_hash
from sam2long.errors import DataError

FILE = "manifest.json"
_PACKAGES = ("sam2", "torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "av")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str | None:
    """The checkout's commit, with "+changes" when tracked files differ from it; None outside a checkout."""
    head = _git("rev-parse", "HEAD")
    return head and head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def describe(dataset, spec: TrackerSpec, names: list[str]) -> dict:
    from sam2long import Sam2LongConfig, __version__

    tracker = spec.as_dict()
    if spec.method == "sam2long":
        tracker["sam2long"] = Sam2LongConfig.from_mapping(spec.sam2long).to_dict()
    return {
        "dataset": {
            "name": dataset.name,
            "protocol": dataset.protocol,
            "per_object": dataset.per_object,
            "videos": names,
            "videos_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        }
        | {
            k: getattr(dataset, k) for k in ("split", "version", "fps", "size", "frames", "auto") if hasattr(dataset, k)
        },
        "tracker": tracker,
        "checkpoint_sha256": checkpoint_hash(spec),
        "versions": {"sam2long": __version__, "python": platform.python_version()}
        | {p: _version(p) for p in _PACKAGES},
        "commit": commit(),
        "machine": machine.describe(),  # that began the run
    }


# parts of the manifest that decide the masks: a run is only continued when they are equal
_IDENTITY = ("dataset", "tracker", "checkpoint_sha256")


def claim(folder: Path, content: dict) -> None:
    """Write the manifest of a new run, or check that the folder holds this very run.

    Raises:
        DataError: the folder holds another run.
    """
    path = folder / FILE
    if path.exists():
        old = read(folder)
        changed = [k for k in _IDENTITY if old.get(k) != content[k]]
        if not changed:
            return
        begun = any((folder / "videos").glob("*.json")) or ("dataset" in changed and (folder / "gt").exists())
        if begun:  # otherwise nothing came of it: a mistyped name, say
            where = {k: sorted(i for i in content[k] if old[k].get(i) != content[k][i]) for k in changed if k in old
                     and isinstance(old[k], dict)}  # fmt: skip
            detail = "; ".join(f"{k}: {', '.join(v)}" for k, v in where.items() if v) or ", ".join(changed)
            raise DataError(f"{folder} holds a run with other settings ({detail}); choose another --out or delete it")
    pngs.write_whole(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read(folder: Path) -> dict:
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {FILE}; expected a folder that `python -m eval run` wrote") from None
    except (ValueError, RecursionError):
        raise DataError(f"{folder / FILE} is not JSON; delete it to start the run again") from None

"""Virtual environments with a host in them, for the tests that run the real program.

A host's requirements may not go with ours (Label Studio's do not), and are heavy. Each environment is made once, by the
first test that asks, and kept in the user's cache folder under the list of what is in it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sam2long-tests"
READY = "ready"


def environment(name: str, *requirements: str, with_ours: bool = True) -> Path:
    """The folder of programs of an environment that has these packages from the registry.

    Args:
        with_ours: what is installed beside this Python (torch, ...) can be imported there too; sam2long itself comes
            by `variables`.
    """
    ours = sysconfig.get_paths()["purelib"] if with_ours else ""
    listed = "\n".join([sys.version, ours, *requirements])
    folder = CACHE / f"{name}-{hashlib.sha256(listed.encode()).hexdigest()[:12]}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / READY).exists():
            venv.create(folder, with_pip=True, clear=True)
            python = programs / "python"
            if ours:
                asked = [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
                theirs = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
                Path(theirs, "ours.pth").write_text(f"{ours}\n")
            done = subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--no-compile", *requirements],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                said = f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}"
                (pytest.fail if os.environ.get("REQUIRE_HOSTS") == "1" else pytest.skip)(said)
            (folder / READY).touch()
    return programs


def variables(**more: str) -> dict[str, str]:
    """The environment variables of a host that loads sam2long from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}

"""An installed X-AnyLabeling with its SAM 2 video model served by SAM2Long.

X-AnyLabeling asks `sam2.build_sam` for `build_sam2_camera_predictor`, which only real-time forks of sam2 have. It runs
as a program of its own (it is GPL, and none of its code is here): this module run as a program, which provides the
function first and then starts X-AnyLabeling by its entry point.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from sam2long.errors import ConfigError

COMMAND = "xanylabeling"
PACKAGE = "x-anylabeling-cvhub"


def start(args: Sequence[str]) -> int:
    """Run it with these arguments until its window is closed; returns its exit code.

    Raises:
        ConfigError: it is not installed beside sam2long. ModelError: the installed sam2 is not the real one.
    """
    from sam2long.network.install import require_sam2

    entry_point()
    require_sam2()
    return subprocess.call([sys.executable, "-m", __name__, *args])


def entry_point() -> EntryPoint:
    """Where X-AnyLabeling starts.

    Raises:
        ConfigError: it is not installed beside sam2long.
    """
    found = tuple(entry_points(group="console_scripts", name=COMMAND))
    if not found:
        raise ConfigError(
            f"X-AnyLabeling is not installed beside sam2long; pip install {PACKAGE} into this environment "
            f"({sys.prefix}), then start it with this command again"
        )
    return found[0]


def _run() -> int:
    import sam2.build_sam

    from sam2long import build_sam2long_camera_predictor

    sam2.build_sam.build_sam2_camera_predictor = build_sam2long_camera_predictor
    sys.argv[0] = COMMAND
    return entry_point().load()()


if __name__ == "__main__":
    sys.exit(_run())

"""`sam2long x-anylabeling`: an installed X-AnyLabeling with its SAM 2 video model served by SAM2Long.

X-AnyLabeling asks `sam2.build_sam` for `build_sam2_camera_predictor`, which only real-time forks of sam2 have. It runs
as a program of its own (it is GPL, and none of its code is here); that program is a module of ours, which provides the
function first and then starts X-AnyLabeling by its entry point (x_anylabeling_program.py).
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

from tyro.conf import Positional, arg

from sam2long.errors import ConfigError

COMMAND = "xanylabeling"
PACKAGE = "x-anylabeling-cvhub"


@dataclass(kw_only=True)
class XAnyLabeling:
    """Start an installed X-AnyLabeling with its "Segment Anything 2 (Video)" models served by SAM2Long."""

    args: Annotated[Positional[tuple[str, ...]], arg(metavar="[ARGS ...]", help_behavior_hint="")] = ()
    """Handed on to X-AnyLabeling as they are, e.g. --filename frames/ --work-dir ."""

    def run(self) -> int:
        from sam2long.network.install import require_sam2

        entry_point()
        require_sam2()
        return subprocess.call([sys.executable, "-m", "sam2long.cli.x_anylabeling_program", *self.args])


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

"""`sam2long x-anylabeling`: an installed X-AnyLabeling with its SAM 2 video model served by SAM2Long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(kw_only=True)
class XAnyLabeling:
    """Start an installed X-AnyLabeling with its "Segment Anything 2 (Video)" models served by SAM2Long."""

    args: Annotated[Positional[tuple[str, ...]], arg(metavar="[ARGS ...]", help_behavior_hint="")] = ()
    """Handed on to X-AnyLabeling as they are, e.g. --filename frames/ --work-dir ."""

    def run(self) -> int:
        from sam2long.hosts.x_anylabeling import start

        return start(self.args)

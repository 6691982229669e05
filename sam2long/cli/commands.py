"""All subcommands, and which of them a command line asks for."""

from __future__ import annotations

from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, subcommand

from sam2long.cli.annotate import EXAMPLES as ANNOTATE_EXAMPLES
from sam2long.cli.annotate import Annotate
from sam2long.cli.demo import Demo
from sam2long.cli.doctor import Doctor
from sam2long.cli.export import EXAMPLES as EXPORT_EXAMPLES
from sam2long.cli.export import Export
from sam2long.cli.live import EXAMPLES as LIVE_EXAMPLES
from sam2long.cli.live import Live
from sam2long.cli.models import Models
from sam2long.cli.track import EXAMPLES, Track
from sam2long.cli.x_anylabeling import XAnyLabeling


def read_command(arguments: list[str]) -> Any:
    """The command to run. Prints and exits where help is asked for, or where the arguments are not understood."""
    if arguments[:1] == ["x-anylabeling"] and arguments[1:] not in (["-h"], ["--help"]):
        return XAnyLabeling(args=tuple(arguments[1:]))  # its flags are not ours to read
    commands = (
        Annotated[Track, subcommand("track", description=EXAMPLES, prefix_name=False)]
        | Annotated[Export, subcommand("export", description=EXPORT_EXAMPLES, prefix_name=False)]
        | Annotated[Annotate, subcommand("annotate", description=ANNOTATE_EXAMPLES, prefix_name=False)]
        | Annotated[Live, subcommand("live", description=LIVE_EXAMPLES, prefix_name=False)]
        | Annotated[XAnyLabeling, subcommand("x-anylabeling", prefix_name=False)]
        | Annotated[Demo, subcommand("demo", prefix_name=False)]
        | Annotated[Doctor, subcommand("doctor", prefix_name=False)]
        | Annotated[Models, subcommand("models", prefix_name=False)]
    )
    return tyro.cli(
        OmitArgPrefixes[FlagCreatePairsOff[commands]],
        prog="sam2long",
        args=arguments,
        description="Track and segment any object through a video of any length: SAM2Long on the unmodified sam2.",
    )

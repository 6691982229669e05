"""All subcommands, and which of them a command line asks for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

import tyro

from sam2long.cli.flags import refuse_settings
from sam2long.errors import ConfigError

COMMANDS = {  # name -> module, class, and what `sam2long --help` says of it
    "track": ("track", "Track", "track objects through a video; masks, overlay, report"),
    "export": ("export", "Export", "write the masks of a run for another program"),
    "annotate": ("annotate", "Annotate", "prompt, track, correct and export in the browser"),
    "live": ("live", "Live", "track what a camera, a stream or a file shows"),
    "demo": ("demo", "Demo", "SAM 2 and SAM2Long side by side; no download, a minute"),
    "models": ("models", "Models", "the models that --model takes, and where they are"),
    "doctor": ("doctor", "Doctor", "check the installation"),
    "label-studio": ("label_studio", "LabelStudio", "a backend for Label Studio"),
    "x-anylabeling": ("x_anylabeling", "XAnyLabeling", "X-AnyLabeling with SAM2Long behind it"),
}
MARKERS: Any = tyro.conf  # they are put around a class that is not known before
SETTABLE = ("track", "annotate", "live", "label-studio")  # have --set

HELP = f"""usage: sam2long COMMAND ...

Track and segment any object through a video of any length: SAM2Long on the unmodified sam2.

{chr(10).join(f"  {name:15}{text}" for name, (_, _, text) in COMMANDS.items())}

example:
  sam2long track dog.mp4 --box 100,80,300,260 --out runs/dog

sam2long COMMAND --help shows a command's flags and examples; sam2long --version the version."""


def read_command(arguments: list[str]) -> Any:
    """The command to run. Prints and exits where help is asked for, or where the flags are not understood.

    Raises:
        ConfigError: no command, an unknown one, or a setting given as a flag.
    """
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(HELP)
        raise SystemExit(0)
    if not arguments:
        raise ConfigError(f"no command given; expected one of {', '.join(COMMANDS)} (sam2long --help says more)")
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise ConfigError(f"there is no command {name!r}; {hint} (sam2long --help says more)")
    if name in SETTABLE:
        refuse_settings(rest)
    module_name, class_name, _ = COMMANDS[name]
    module = import_module(f"sam2long.cli.{module_name}")
    command = getattr(module, class_name)
    if name == "x-anylabeling" and rest not in (["-h"], ["--help"]):
        return command(args=tuple(rest))  # its flags are not ours to read
    return tyro.cli(
        MARKERS.OmitArgPrefixes[MARKERS.FlagCreatePairsOff[command]],
        prog=f"sam2long {name}",
        args=rest,
        description=getattr(module, "EXAMPLES", command.__doc__),
    )

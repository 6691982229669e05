"""The `sam2long` command, one module for each subcommand; libraries are loaded when they are needed."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Sequence

from sam2long._version import __version__
from sam2long.cli.doctor import Doctor
from sam2long.cli.exit_codes import INTERRUPTED, UNREAD, USER_ERROR
from sam2long.errors import Sam2LongError, sentence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. What is the user's to mend is one sentence on stderr and code 2."""
    if argv is None:
        _speak_utf8()
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough: `sam2long track --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains on its way out
        return UNREAD


def _speak_utf8() -> None:
    """Where the locale knows ASCII only, as in bare containers, start again with Python's UTF-8 mode: names of files
    and objects are read, written and printed as they are. Names of files that are no text at all are printed too."""
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _main(arguments: list[str]) -> int:
    if arguments in (["--version"], ["version"]):
        print(f"sam2long {__version__}")
        return 0
    if arguments == ["doctor"]:
        return _guarded(Doctor().run)  # tyro itself may be missing or too old
    from sam2long.cli.commands import read_command

    return _guarded(lambda: read_command(arguments).run())


def _guarded(run: Callable[[], int]) -> int:
    try:
        return run()
    except Sam2LongError as error:
        print(f"sam2long: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"sam2long: {sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\nsam2long: stopped", file=sys.stderr)
        return INTERRUPTED

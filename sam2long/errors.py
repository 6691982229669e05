"""Every error that sam2long raises on purpose. The command line turns each into one sentence and exit code 2."""

import errno
import reprlib


class Sam2LongError(Exception):
    """Base class. The message says what was got, what was expected and what to do."""


class ConfigError(Sam2LongError, ValueError):
    """A setting that is out of range, or that does not go with another one."""


class PromptError(Sam2LongError, ValueError):
    """Points, box or mask that cannot be used; the state is as it was before the call."""


class StateError(Sam2LongError, RuntimeError):
    """A call that does not fit the state: unknown object, nothing prompted, frame out of reach."""


class VideoError(Sam2LongError, ValueError):
    """A video, an image folder or a camera that cannot be read or written."""


class ModelError(Sam2LongError, RuntimeError):
    """A checkpoint, model config or sam2 installation that cannot be used."""


class DataError(Sam2LongError, ValueError):
    """A dataset, prompt file or prediction tree that is not as its format says."""


def first_line(error: Exception) -> str:
    """What a library said, without what it added below."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def sentence(error: OSError) -> str:
    """What the system refused, and about which file."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def out_of_files(error: BaseException) -> str | None:
    """What to do when the system gives no more open files; None when that is not what went wrong."""
    if getattr(error, "errno", None) not in (errno.EMFILE, errno.ENFILE):
        return None
    return (
        "this program has as many files open as the system allows; close what is not needed any more (videos, states, "
        "iterations that were left half-way), or raise the limit (ulimit -n 4096)"
    )


def short(value: object) -> str:
    """What somebody has written, for a message: the beginning, where it is long."""
    return _Short.repr(value)


_Short = reprlib.Repr()
_Short.maxstring = _Short.maxother = _Short.maxlong = 80

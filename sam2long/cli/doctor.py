"""`sam2long doctor`: is everything there that tracking needs, and what to do when not."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GOOD, HINT, BAD = "ok", "note", "PROBLEM"
Finding = tuple[str, str]  # GOOD, HINT or BAD, and a sentence that says what to do


@dataclass
class Doctor:
    """Check the installation: versions, sam2, torch, device, checkpoints, codecs. Exits with 1 when one is wrong."""

    def run(self) -> int:
        worst_is_bad = False
        for title, check in CHECKS.items():
            for level, sentence in _guarded(check):
                worst_is_bad |= level == BAD
                print(f"{title:12} {level:8} {sentence}", flush=True)
        print("\nSomething must be mended before tracking works." if worst_is_bad else "\nReady to track.")
        return 1 if worst_is_bad else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails in a way nobody thought of is a finding too."""
    try:
        yield from check()
    except Exception as error:  # the point of a doctor is to survive
        yield BAD, f"the check itself failed with {type(error).__name__}: {str(error).splitlines()[0]}"


def check_python() -> Iterator[Finding]:
    from sam2long._version import __version__

    yield GOOD, f"sam2long {__version__}, Python {platform.python_version()} on {platform.platform()}"


def check_torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield BAD, f"torch cannot be loaded ({_line(error)}); install the build of torch that is made for this machine"
        return
    try:
        import torchvision
        import torchvision.ops  # registers operators; a pair from two builds fails here
    except (ImportError, OSError, RuntimeError) as error:
        yield (
            BAD,
            (
                f"torchvision does not go with torch {torch.__version__} ({_line(error)}); "
                "install both anew in one command from one index"
            ),
        )
        return
    yield GOOD, f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def check_sam2() -> Iterator[Finding]:
    from sam2long.network.install import sam2_problems

    problems = sam2_problems()
    for problem in problems:
        yield BAD, problem
    if not problems:
        yield GOOD, f"sam2 {_version('sam2') or '(version unknown)'}, unmodified"


def check_device() -> Iterator[Finding]:
    import torch

    from sam2long.network.devices import best_device, fast_bfloat16

    device = best_device()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        half = "bfloat16" if fast_bfloat16(device) else "float32: no bfloat16 on this device"
        yield GOOD, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, computes in {half}"
    elif device.type == "cpu":
        yield HINT, "no accelerator: tracking runs on the CPU, which is slow for all but the nano and tiny models"
        if torch.version.cuda and not torch.cuda.is_available():
            yield HINT, f"torch is built for CUDA {torch.version.cuda} but sees no device; see what nvidia-smi says"
    else:
        yield GOOD, f"device {device}"


def check_checkpoints() -> Iterator[Finding]:
    from sam2long.weights import CHECKPOINTS

    found = [checkpoint.name for checkpoint in CHECKPOINTS.values() if checkpoint.local_path()]
    if "nano" not in found:
        yield HINT, "the embedded nano model is missing from this installation; install sam2long again"
    if found:
        yield GOOD, f"found {', '.join(found)}"
    if len(found) < 2:
        yield HINT, "Meta's checkpoints are fetched on first use (--model sam2.1-large, ...); see `sam2long models`"


def check_video() -> Iterator[Finding]:
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, version))}" for name, version in av.library_versions.items() if name == "libavcodec"
    )
    yield GOOD, f"PyAV {av.__version__} ({libraries})"
    decoders = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4") if _has_codec(name, "r")]
    missing = {"h264", "hevc", "vp9", "av1", "mpeg4"} - set(decoders)
    if missing:
        yield HINT, f"cannot read {', '.join(sorted(missing))}; `pip install av` brings an FFmpeg that can"
    else:
        yield GOOD, f"reads {', '.join(decoders)}"
    if _has_codec("libx264", "w"):
        yield GOOD, "writes H.264 (libx264)"
    elif _has_codec("h264", "w"):
        yield HINT, "writes H.264 without libx264; quality settings do not apply"
    else:
        yield BAD, "cannot write H.264, so there is no overlay.mp4; `pip install av` brings an FFmpeg that can"


def check_packages() -> Iterator[Finding]:
    try:
        requirements = list(_requirements())
    except importlib.metadata.PackageNotFoundError:
        yield HINT, "sam2long runs from a folder without being installed, so versions were not compared; pip install ."
        return
    found, wrong = [], []
    for requirement in requirements:
        version = _version(requirement.name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version}")
        else:
            wrong.append(requirement)
            said = "is not installed" if version is None else _misfit(requirement, version)
            yield BAD, f"{requirement.name} {said}: needed is {_plain(requirement)}"
    for requirement, extras in _installed_extras():
        version = _version(requirement.name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            wrong.append(requirement)
            said = _misfit(requirement, version)
            yield HINT, f"{requirement.name} {said} for [{', '.join(extras)}]: needed is {_plain(requirement)}"
    if wrong:
        together = "; torch and torchvision in one command, from one index" if _is_about_torch(wrong) else ""
        packages = " ".join(shlex.quote(_plain(requirement)) for requirement in wrong)
        yield HINT, f"to mend that: pip install --upgrade {packages}{together}"
    if found:
        yield GOOD, ", ".join(found)


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": check_python,
    "torch": check_torch,
    "sam2": check_sam2,
    "device": check_device,
    "checkpoints": check_checkpoints,
    "video": check_video,
    "packages": check_packages,
}


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def _requirements(extra: str = "") -> Iterator[Requirement]:
    """What this installation of sam2long asks for, without extras or by one of them."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("sam2long") or ():
        requirement = Requirement(text)
        if requirement.marker.evaluate({"extra": extra}) if requirement.marker else not extra:
            yield requirement


def _installed_extras() -> Iterator[tuple[Requirement, list[str]]]:
    """What extras ask for and is installed, whoever installed it; and by which extras."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for extra in importlib.metadata.metadata("sam2long").get_all("Provides-Extra") or ():
        for requirement in _requirements(extra):
            if _version(requirement.name) is not None:
                found.setdefault(_plain(requirement), (requirement, []))[1].append(extra)
    yield from found.values()


def _plain(requirement: Requirement) -> str:
    """A requirement as pip takes it, without the extra that it belongs to."""
    return f"{requirement.name}{requirement.specifier}"


def _misfit(requirement: Requirement, version: str) -> str:
    broken = [bound for bound in requirement.specifier if not bound.contains(version, prereleases=True)]
    return f"{version} is too {'new' if all(bound.operator.startswith('<') for bound in broken) else 'old'}"


def _is_about_torch(requirements: list[Requirement]) -> bool:
    return any(requirement.name in ("torch", "torchvision") for requirement in requirements)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

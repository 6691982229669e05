"""Settings of a run: flags over a YAML over the defaults, as plain values that go into run.json."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError, DataError, short

DIRECTIONS = ("forward", "backward", "both")
MODEL_KEYS = ("model", "checkpoint", "device", "dtype", "compile", "overrides")
METHOD_FIELDS = tuple(entry.name for entry in fields(Sam2LongConfig))
GONE = ("reseed", "reseed_every", "merge_agreeing")  # settings of earlier versions; None where they were not used
WORDS = {"true": True, "false": False, "none": None, "null": None}  # of a setting that is given as text


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Everything that decides which masks come out, but the prompts.

    Raises:
        ConfigError: a value out of its range; the message names the setting.
    """

    video: str
    model: str = "nano"
    checkpoint: str | None = None
    device: str | None = None
    dtype: str = "auto"
    compile: bool = False
    overrides: tuple[str, ...] = ()  # of the model's YAML, in Hydra's form
    direction: str = "forward"
    start: int = 0
    stride: int = 1
    max_frames: int | None = None
    sam2long: dict[str, Any] = field(default_factory=lambda: Sam2LongConfig().to_dict())

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ConfigError(f"direction is {self.direction!r}; expected {', '.join(DIRECTIONS)}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"max_frames is {self.max_frames}; expected 1 or more")
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; expected 1 or more: 1 takes every frame, 2 every other one")
        if self.start < 0:
            raise ConfigError(f"start is {self.start}; expected a frame of the video, 0 or more")
        object.__setattr__(self, "sam2long", self.config().to_dict())

    def config(self) -> Sam2LongConfig:
        return Sam2LongConfig.from_mapping(self.sam2long)

    def stop(self) -> int | None:
        """The frame of the video to stop before."""
        return None if self.max_frames is None else self.start + self.max_frames * self.stride

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"overrides": list(self.overrides)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """From a run.json, also one of an earlier version.

        Raises:
            DataError: it names a setting that this version does not have.
        """
        known = {entry.name for entry in fields(cls)}
        kept = without_gone(values)
        if unknown := sorted(kept.keys() - known):
            raise DataError(f"the run was made with {', '.join(unknown)}, which this version does not have")
        method = without_gone(kept.get("sam2long", {}))
        return cls(**{**kept, "overrides": tuple(kept.get("overrides", ())), "sam2long": method})


def without_gone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that are no more and that were not used."""
    return {key: value for key, value in values.items() if not (key in GONE and value is None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for: only the settings that a YAML or a flag named, whatever their value."""

    run: Mapping[str, Any] = field(default_factory=dict)  # fields of RunSettings
    method: Mapping[str, Any] = field(default_factory=dict)  # fields of Sam2LongConfig
    file: Path | None = None  # the YAML; the settings of the method that it does not name are the defaults

    def settings(self, video: str) -> RunSettings:
        """With the defaults for the rest."""
        return RunSettings(video=video, **self.run, sam2long=self._method().to_dict())

    def over(self, stored: Mapping[str, Any], video: str) -> RunSettings:
        """With stored settings, those of a run.json, for the rest."""
        return RunSettings.from_dict(
            {**stored, **self.run, "video": video, "sam2long": {**stored.get("sam2long", {}), **self.method}}
        )

    def flat(self) -> dict[str, Any]:
        """Name of a setting, as `name_of` shows it -> value."""
        method = self.method if self.file is None else self._method().to_dict()
        flags = {f"--{key.replace('_', '-')}": value for key, value in self.run.items() if key != "overrides"}
        return flags | {f"--set {key}": value for key, value in method.items()}

    def _method(self) -> Sam2LongConfig:
        return Sam2LongConfig.from_mapping(self.method)


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings by the names of the flags that set them."""
    return Asked(run={**settings, "sam2long": None}, method=settings["sam2long"]).flat()


def require_same(asked: Mapping[str, Any], stored: Mapping[str, Any], run: str) -> None:
    """What is asked for beside --resume may repeat what a run was begun with, but not change it.

    Args:
        asked: flag -> value, of the flags that were given, whatever their value.
        stored: flag -> value that counts in the run. run: what the message calls it.
    Raises:
        ConfigError: names the first that differs.
    """
    for flag, value in asked.items():
        was = stored.get(flag)
        if _plain(value) != _plain(was):
            raise ConfigError(
                f"{flag} is {_shown(value)} but {run} has {_shown(was)}; leave it out with --resume, or start anew "
                "with --overwrite"
            )


def asked_for(run: Mapping[str, Any], method: Mapping[str, Any], file: Path | None = None) -> Asked:
    """Put flags over the YAML.

    Args:
        run, method: fields of RunSettings and of Sam2LongConfig; None in `run` where not given.
        file: YAML, see `read_settings`.
    """
    of_model, of_method = read_settings(file) if file else ({}, {})
    given = {key: value for key, value in run.items() if value is not None}
    asked = Asked(run={**of_model, **given}, method={**of_method, **method}, file=file)
    asked.settings("")  # what is wrong shows now
    return asked


def read_settings(path: Path, keys: Collection[str] = MODEL_KEYS) -> tuple[dict[str, Any], dict[str, Any]]:
    """A YAML of settings: fields of Sam2LongConfig at the top or below `sam2long:`, and keys of the model.

    Args:
        path: of the YAML. keys: others that may stand there.
    Returns:
        Values of `keys` and of the fields, only those that are there; `overrides` as a tuple.
    Raises:
        ConfigError: no such file, no YAML, or settings that are not known.
    """
    content = read_yaml(path)
    nested = content.pop("sam2long", None) or {}
    if not isinstance(nested, dict):
        raise ConfigError(f"{path}: sam2long is {nested!r}; expected `name: value` lines below it")
    at_top = {key: content.pop(key) for key in list(content) if key in METHOD_FIELDS}
    others = {key: content.pop(key) for key in list(content) if key in keys}
    if content:
        raise ConfigError(
            f"{path} has unknown settings {', '.join(sorted(map(str, content)))}; expected sam2long, "
            f"{', '.join(keys)} or a field of Sam2LongConfig"
        )
    if "overrides" in others:
        others["overrides"] = tuple(others["overrides"] or ())
    return others, {**at_top, **nested}


def read_yaml(path: Path) -> dict[Any, Any]:
    """A YAML file with `name: value` lines.

    Raises:
        ConfigError: not there, no YAML, or something else in it.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}; expected a YAML file") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML ({str(error).splitlines()[0]}); correct it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; expected `name: value` lines")
    return content


def from_text(settings: Sequence[str]) -> dict[str, Any]:
    """Fields of Sam2LongConfig from "name=value": numbers, true, false, none, words; several with commas between.

    Raises:
        ConfigError: no such form, an unknown name, or one that is given twice.
    """
    found: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"--set is {short(text)}; expected NAME=VALUE, as in --set num_pathways=1")
        if name not in METHOD_FIELDS:
            near = difflib.get_close_matches(name, METHOD_FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(METHOD_FIELDS)}"
            raise ConfigError(f"--set {short(name)}: there is no such setting; {hint}")
        if name in found:
            raise ConfigError(f"--set {name} is given twice; leave one of the two out")
        found[name] = [_value(part) for part in value.split(",")] if "," in value else _value(value)
    return found


def _value(text: str) -> Any:
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""Settings of a run: flags over a YAML over the defaults, as plain values that go into run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError

DIRECTIONS = ("forward", "backward", "both")
MODEL_KEYS = ("model", "checkpoint", "device", "dtype", "compile", "overrides")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Everything that decides which masks come out, but the prompts."""

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

    def config(self) -> Sam2LongConfig:
        return Sam2LongConfig.from_mapping(self.sam2long)

    def stop(self) -> int | None:
        """The frame of the video to stop before."""
        return None if self.max_frames is None else self.start + self.max_frames * self.stride

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"overrides": list(self.overrides)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        return cls(**{**values, "overrides": tuple(values["overrides"])})


def settings_from(
    video: str, config_file: Path | None, run_flags: Mapping[str, Any], field_flags: Mapping[str, Any]
) -> RunSettings:
    """Put settings together.

    Args:
        video: path, or what `open_source` takes as text.
        config_file: YAML with `sam2long:` fields (or fields at the top), `model`, `checkpoint`, `device`,
            `dtype`, `compile` and `overrides`; only what differs from the defaults.
        run_flags, field_flags: from the command line, None where not given; they win over the YAML.
    """
    known = {setting.name for setting in fields(Sam2LongConfig)}
    content = _read_yaml(config_file) if config_file else {}
    nested = content.pop("sam2long", None) or {}
    if not isinstance(nested, dict):
        raise ConfigError(f"{config_file}: sam2long is {nested!r}; expected `name: value` lines below it")
    at_top = {key: content.pop(key) for key in list(content) if key in known}
    of_model = {key: content.pop(key) for key in list(content) if key in MODEL_KEYS}
    if content:
        raise ConfigError(
            f"{config_file} has unknown settings {', '.join(sorted(map(str, content)))}; expected sam2long, "
            f"{', '.join(MODEL_KEYS)} or a field of Sam2LongConfig"
        )
    of_model["overrides"] = tuple(of_model.get("overrides") or ())
    given = {key: value for key, value in field_flags.items() if value is not None}
    chosen = Sam2LongConfig.from_mapping({**at_top, **nested, **given})
    run_values = {key: value for key, value in run_flags.items() if value is not None}
    return RunSettings(video=video, **{**of_model, **run_values}, sam2long=chosen.to_dict())


def _read_yaml(path: Path) -> dict[str, Any]:
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

"""From a YAML of settings and command-line values to a TrackerSpec.

The YAML holds only what differs from the defaults: `sam2long:` settings, `overrides:` of the model, and, if it likes,
`model:`, `checkpoint:`, `dtype:`. Settings may also stand at the top.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError

_SPEC_KEYS = ("model", "checkpoint", "dtype", "device", "seed")


def read_yaml(path: Path) -> dict:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; expected a YAML of settings") from None
    except (YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML ({str(error).splitlines()[0]}); correct it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; expected `name: value` lines")
    return content


def tracker_spec(*, config: Path | None = None, **values: object) -> TrackerSpec:
    """`values` (from the command line, None where not given) win over the YAML, which wins over the defaults."""
    from sam2long import Sam2LongConfig

    content = read_yaml(config) if config else {}
    known = {f.name for f in dataclasses.fields(Sam2LongConfig)}
    nested = dict(content.pop("sam2long", None) or {})
    top = {k: content.pop(k) for k in list(content) if k in known}
    overrides = tuple(content.pop("overrides", None) or ())
    spec_values = {k: content.pop(k) for k in list(content) if k in _SPEC_KEYS}
    if content:
        raise ConfigError(
            f"{config} has unknown settings {', '.join(sorted(content))}; expected sam2long, overrides, "
            f"{', '.join(_SPEC_KEYS)} or a field of Sam2LongConfig"
        )
    defaults = TrackerSpec()
    given = {k: v for k, v in values.items() if v is not None}
    settings = Sam2LongConfig.from_mapping(top | nested)  # refuses what is unknown or out of range
    changed = {k: v for k, v in settings.to_dict().items() if v != Sam2LongConfig().to_dict()[k]}
    return replace(defaults, sam2long=changed, overrides=overrides, **(spec_values | given))


def baseline_of(spec: TrackerSpec) -> TrackerSpec:
    """Plain SAM 2 on the same weights, device and precision."""
    return replace(spec, method="sam2", sam2long={})

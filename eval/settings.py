"""From a YAML of settings and command-line values to a TrackerSpec.

The YAML holds only what differs from the defaults: `sam2long:` settings, `overrides:` of the model, and, if it likes,
`model:`, `checkpoint:`, `dtype:`. Settings may also stand at the top.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eval.trackers import TrackerSpec
from sam2long.runs.settings import read_settings

_SPEC_KEYS = ("model", "checkpoint", "dtype", "device", "seed", "overrides")


def tracker_spec(*, config: Path | None = None, **values: object) -> TrackerSpec:
    """`values` (from the command line, None where not given) win over the YAML, which wins over the defaults."""
    from sam2long import Sam2LongConfig

    of_model, of_method = read_settings(config, _SPEC_KEYS) if config else ({}, {})
    given = {k: v for k, v in values.items() if v is not None}
    settings = Sam2LongConfig.from_mapping(of_method).to_dict()  # refuses what is unknown or out of range
    defaults = Sam2LongConfig().to_dict()
    changed = {k: v for k, v in settings.items() if v != defaults[k]}
    return replace(TrackerSpec(), sam2long=changed, **(of_model | given))


def baseline_of(spec: TrackerSpec) -> TrackerSpec:
    """Plain SAM 2 on the same weights, device and precision."""
    return replace(spec, method="sam2", sam2long={})

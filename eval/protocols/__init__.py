"""How each official tool turns two folders of masks into numbers.

A protocol is a plan (which frames, which ids, what happens to 255, from which frame an object counts) and a reducer
(frame scores to object scores to the printed figures); the frame scores between them are shared.
"""

from __future__ import annotations

from importlib import import_module

from sam2long.errors import ConfigError

_MODULES = {
    "davis": "davis",
    "davis2016": "davis",
    "vost": "davis",
    "sav": "vos",
    "vos-benchmark": "vos",
    "lvos": "lvos",
    "lvos-2023": "lvos",
    "mosev2": "mosev2",
    "box": "box",
}
NAMES = tuple(_MODULES)


def find(name: str):
    """The protocol's `evaluate(gt, pred, options) -> Scores`."""
    if name not in _MODULES:
        raise ConfigError(f"no protocol is called {name!r}; expected one of {', '.join(NAMES)}")
    return import_module(f"eval.protocols.{_MODULES[name]}").PROTOCOLS[name]

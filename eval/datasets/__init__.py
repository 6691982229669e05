"""The benchmarks, each as its publishers lay it out: frames, prompts, frames to save, and a check before any GPU
time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from eval.datasets.base import Dataset
from sam2long.errors import ConfigError

_CLASSES = {  # name -> (module, class, arguments that set the split)
    "davis17-val": ("davis", "Davis17", {"split": "val"}),
    "davis17-test-dev": ("davis", "Davis17", {"split": "test-dev"}),
    "davis16-val": ("davis", "Davis16", {"split": "val"}),
    "davis-long": ("davis", "DavisLong", {"split": "val"}),
    "sav-val": ("sav", "Sav", {"split": "val"}),
    "sav-test": ("sav", "Sav", {"split": "test"}),
    "sav-raw": ("sav_raw", "SavRaw", {}),
    "lvos-v1": ("lvos", "Lvos", {"split": "val", "version": "v1"}),
    "lvos-v1-test": ("lvos", "Lvos", {"split": "test", "version": "v1"}),
    "lvos-v2": ("lvos", "Lvos", {"split": "val", "version": "v2"}),
    "lvos-v2-test": ("lvos", "Lvos", {"split": "test", "version": "v2"}),
    "mose-v1": ("mose", "Mose", {"version": "v1"}),
    "mose-v2": ("mose", "Mose", {"version": "v2"}),
    "ytvos19": ("ytvos", "YouTubeVos", {"fps": 6}),
    "ytvos19-30fps": ("ytvos", "YouTubeVos", {"fps": 30}),
    "vost": ("vost", "Vost", {"split": "val"}),
    "vost-test": ("vost", "Vost", {"split": "test"}),
    "pumavos": ("pumavos", "PumaVos", {}),
    "folder": ("folder", "Folder", {}),
    "synthlong": ("synthlong", "SynthLong", {}),
}
NAMES = tuple(_CLASSES)


def open_dataset(name: str, root: str | Path | None = None, **options: object) -> Dataset:
    """The data set called `name` in folder `root` (synthlong is generated and needs none). Nothing is read yet."""
    if name not in _CLASSES:
        raise ConfigError(f"no data set is called {name!r}; expected one of {', '.join(NAMES)}")
    module, class_name, fixed = _CLASSES[name]
    if root is None and name != "synthlong":
        raise ConfigError(f"data set {name} needs its folder; give it with --root DIR")
    cls = getattr(import_module(f"eval.datasets.{module}"), class_name)
    return cls(name=name, root=Path(root) if root is not None else None, **fixed, **options)

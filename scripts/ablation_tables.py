"""The tables of configs/ablation: which settings are compared, and with which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eval.trackers import TrackerSpec
from sam2long.runs.settings import read_yaml

TABLES = Path(__file__).parents[1] / "configs" / "ablation"
_NOT_SETTINGS = ("name", "method", "published", "scale")


@dataclass(frozen=True)
class Variant:
    name: str
    spec: TrackerSpec
    x: float | None
    published: tuple


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    x: str | None
    variants: tuple[Variant, ...]
    published_columns: tuple[str, ...]
    published_source: str
    reference: str | None  # the variant that others are compared with; None: the default settings, if among them

    def compared_with(self) -> Variant | None:
        if self.reference is not None:
            return next(v for v in self.variants if v.name == self.reference)
        plain = (v for v in self.variants if not (v.spec.sam2long or v.spec.overrides))
        return next((v for v in plain if v.spec.method == "sam2long"), None)


def trained_size(model: str) -> int:
    """`image_size` in the model's YAML."""
    import sam2

    from sam2long.weights import CHECKPOINTS

    name = CHECKPOINTS[model].config if model in CHECKPOINTS else model
    path = Path(name) if Path(name).is_file() else Path(sam2.__path__[0]) / name
    return int(read_yaml(path)["model"].get("image_size", 1024))


def read_table(path: Path, base: TrackerSpec) -> Table:
    content = read_yaml(path)
    variants = []
    for entry in content["variants"]:
        method = entry.get("method", base.method)
        changes = {k: v for k, v in entry.items() if k not in _NOT_SETTINGS}
        spec = replace(base, method=method, sam2long={} if method == "sam2" else base.sam2long | changes)
        if "scale" in entry and entry["scale"] != 1:
            size = round(trained_size(base.model) * entry["scale"] / 16) * 16
            spec = replace(spec, overrides=(*base.overrides, f"++model.image_size={size}"))
        if spec.method == "sam2long":
            spec = replace(spec, sam2long=_only_changed(spec.sam2long))
        x = entry.get(content.get("x"), None) if content.get("x") else None
        variants.append(Variant(str(entry["name"]), spec, x, tuple(entry.get("published", ()))))
    published = content.get("published") or {}
    return Table(
        path.stem,
        content["title"],
        content.get("x"),
        tuple(variants),
        tuple(published.get("columns", ())),
        published.get("source", ""),
        content.get("reference"),
    )


def _only_changed(values: dict) -> dict:
    """Without what equals the defaults, so that equal settings are equal runs."""
    from sam2long import Sam2LongConfig

    defaults = Sam2LongConfig().to_dict()
    return {k: v for k, v in Sam2LongConfig.from_mapping(values).to_dict().items() if v != defaults[k]}

"""The house: which room may import which, no circles, and the names that users rely on."""

import ast
from functools import cache
from pathlib import Path

import pytest

import sam2long

ROOT = Path(__file__).resolve().parents[1]


@cache
def modules() -> dict[str, Path]:
    found = {}
    for top in ("sam2long", "eval", "scripts"):
        for path in sorted((ROOT / top).rglob("*.py")):
            base = ROOT / "scripts" if top == "scripts" else ROOT
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of ours that a module imports, anywhere in it, for types only or when it is needed."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (members & set(known)) or {node.module}
    return frozenset(name for name in found & set(known) if name != module)


def circles() -> list[set[str]]:
    """Tarjan's strongly connected components of more than one module."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(imported(module)):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(set(stack[at:]))
            del stack[at:]

    for module in modules():
        if module not in index:
            visit(module)
    return found


def test_nothing_imports_in_a_circle():
    assert circles() == []


def inside(room: str) -> list[str]:
    return [m for m in modules() if m == room or m.startswith(f"{room}.")]


GROUND = {"atomic", "config", "errors", "extras", "folder", "json_file", "naming", "weights", "_version"}
LOWER = GROUND | {"method", "network", "video", "tracking", "models"}
OPENED = LOWER | {"predictor", "camera", "build", "detection", "doubt", "known", "meeting", "merging", "supervision"}
ROOMS = {  # room -> what it may import, beside itself
    "method": {"config", "errors"},
    "network": {"method", "config", "errors", "weights", "extras"},
    "video": {"errors"},
    "models": set(),
    "synthetic": {"errors"},
    "tracking": {"network", "method", "video", "config", "errors", "atomic"},
    "export": GROUND | {"video", "tracking", "doubt", "imports"},
    "imports": GROUND | {"video"},
    "runs": OPENED | {"export", "imports", "synthetic"},
    "hosts": OPENED | {"export", "imports", "runs"},
    "ui": OPENED | {"export", "imports", "runs"},
    "cli": OPENED | {"export", "imports", "runs", "synthetic", "hosts", "ui"},
}


def test_every_room_is_guarded():
    rooms = {path.parent.name for path in (ROOT / "sam2long").glob("*/*.py")}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_from_above(room):
    for module in inside(f"sam2long.{room}"):
        others = {m.split(".")[1] for m in imported(module) if m.startswith("sam2long.")} - {room}
        assert others <= ROOMS[room], module


def test_the_ground_floor_carries_everything():
    for name in GROUND:
        assert {m.split(".")[1] for m in imported(f"sam2long.{name}")} <= GROUND | {"models"}, name


def test_nothing_below_the_command_line_the_page_and_the_hosts_imports_them():
    upper = {"sam2long.cli", "sam2long.ui", "sam2long.hosts"}
    for module in inside("sam2long"):
        if ".".join(module.split(".")[:2]) not in upper:
            assert not [m for m in imported(module) if ".".join(m.split(".")[:2]) in upper], module
    for module in [*inside("sam2long.ui"), *inside("sam2long.hosts")]:
        other = "sam2long.hosts" if module.startswith("sam2long.ui") else "sam2long.ui"
        assert not [m for m in imported(module) if m.startswith(("sam2long.cli", other))], module


def test_only_the_network_and_the_predictors_import_sam2():
    allowed = {*inside("sam2long.network"), "sam2long.predictor", "sam2long.models.neck"}
    allowed.add("sam2long.hosts.x_anylabeling")  # runs inside X-AnyLabeling, in the place of sam2's builder
    for module in set(inside("sam2long")) - allowed:
        tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
        roots = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        roots |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not [r for r in roots if r == "sam2" or r.startswith("sam2.")], module


def test_public_names():
    assert sam2long.__all__ == [
        "SAM2LongCameraPredictor",
        "SAM2LongVideoPredictor",
        "Sam2LongConfig",
        "Sam2LongError",
        "__version__",
        "build_sam2long_camera_predictor",
        "build_sam2long_video_predictor",
        "to_supervision",
    ]
    assert all(getattr(sam2long, name) is not None for name in sam2long.__all__)


@pytest.mark.parametrize(
    "module, names",
    [
        ("sam2long.predictor", ["SAM2LongVideoPredictor"]),
        ("sam2long.camera", ["SAM2LongCameraPredictor"]),
        ("sam2long.build", ["build_sam2long_video_predictor", "build_sam2long_camera_predictor",
                            "build_sam2long_video_predictor_hf"]),
        ("sam2long.config", ["Sam2LongConfig"]),
        ("sam2long.errors", ["Sam2LongError", "ConfigError", "PromptError", "StateError", "VideoError", "ModelError",
                             "DataError"]),
        ("sam2long.supervision", ["to_supervision"]),
        ("sam2long.doubt", ["looks", "reasons"]),
        ("sam2long.detection", ["Detection", "TextDetector"]),
        ("sam2long.video", ["open_source", "VideoWriter"]),
        ("sam2long.export.convert", ["FORMATS", "export_run"]),
        ("sam2long.imports", ["read_prompts"]),
        ("sam2long.synthetic", ["generate", "SYNTHLONG", "SCENARIOS", "Knobs"]),
    ],
)  # fmt: skip
def test_modules_that_users_name(module, names):
    import importlib

    found = importlib.import_module(module)
    assert not [name for name in names if not hasattr(found, name)]

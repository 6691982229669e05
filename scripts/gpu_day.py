"""What there is to know about a GPU in a quarter of an hour: one command, one table, one JSON.

    python scripts/gpu_day.py --out runs/gpu                      # on a GPU, about ten minutes
    python scripts/gpu_day.py --device cpu --tiny --out runs/gpu  # the same steps, tiny, to find typing errors

In this order, so that the most wanted comes first if time runs out (--minutes): the promises of the rehearsal
(tests/rehearsal), one line each, kept or broken; the tests that need a GPU; speed of SAM 2.1 tiny and large at 1024
px beside plain sam2 (scripts/bench.py); whether they stay finite in float16; device memory at frame 300 and 3,000;
what torch.compile gives. `gpu_day.json` is written anew after each step, so nothing that is finished is lost. A step
that fails is written down with its error, and the next one begins.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import bench
import bench_long
import promises

from eval.machine import describe
from eval.report import markdown_table
from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.network.precision import is_finite_in

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Settings:
    """How large each step is."""

    models: tuple[tuple[str, int | None], ...]  # name, and side of its input; None: its own
    objects: tuple[int, ...]
    frames: int  # of a speed measurement
    memory_frames: tuple[int, int]
    memory_model: str


FULL = Settings((("sam2.1-tiny", 1024), ("sam2.1-large", 1024), ("nano", None)), (1, 5), 40, (300, 3000), "nano")
TINY = Settings((("nano", None),), (1,), 17, (20, 40), "nano")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tiny", action="store_true", help="settings that a CPU takes in a minute")
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no step after so many")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR")
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: torch sees no CUDA device; add --device cpu --tiny to try the steps here", file=sys.stderr)
        return 2
    settings, begin = TINY if args.tiny else FULL, time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if args.device.startswith("cuda") else "no GPU"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    found: dict[str, Any] = {
        "card": card, "machine": describe(), "torch": torch.__version__, "commit": commit.strip(),
        "dtype": args.dtype, "steps": {},
    }  # fmt: skip
    for name, step in steps(args, settings).items():
        passed = time.monotonic() - begin
        if passed > 60 * args.minutes:
            found["steps"][name] = {"not run": f"{passed:.0f} s had passed"}
        else:
            found["steps"][name] = _tried(step) | {"seconds": round(time.monotonic() - begin - passed, 1)}
        (args.out / "gpu_day.json").write_text(json.dumps(found, indent=1, default=float) + "\n")
        print(f"{name}: {json.dumps(found['steps'][name], default=float)[:300]}", flush=True)
    (args.out / "gpu_day.md").write_text(page(found))
    print(f"\n{page(found)}\n{args.out}/gpu_day.json, gpu_day.md; {time.monotonic() - begin:.0f} s")
    return 1 if any("error" in step for step in found["steps"].values()) else 0


def steps(args: argparse.Namespace, settings: Settings) -> dict[str, Callable[[], dict[str, Any]]]:
    """Name -> what to do, in order of importance."""
    on_gpu = args.device.startswith("cuda")
    made: dict[str, Callable] = {"promises": lambda: promised(settings, args), "tests": lambda: gpu_tests(on_gpu)}
    for model, size in settings.models:
        for objects in settings.objects:
            made[f"speed of {model}, {objects} objects"] = lambda m=model, s=size, o=objects: speed(
                m, s, o, settings.frames, args
            )
    made["float16"] = lambda: half_precision(settings.models, args)
    made["memory"] = lambda: memory(settings.memory_model, settings.memory_frames, args)
    if on_gpu:
        model, size = settings.models[0]
        made["compiled"] = lambda: speed(model, size, 1, 2 * settings.frames, args, compiled=True)
    return made


def gpu_tests(on_gpu: bool) -> dict[str, Any]:
    """tests/test_gpu.py; without a GPU only that pytest finds them."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_gpu.py", *([] if on_gpu else ["--collect-only"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"passed": done.returncode == 0, "summary": lines[-1] if lines else done.stderr[-300:], "failed": failed}


def speed(
    model: str, size: int | None, objects: int, frames: int, args: argparse.Namespace, compiled: bool = False
) -> dict[str, Any]:
    """Rows of scripts/bench.py: milliseconds per frame and times sam2 of each system."""
    wanted = argparse.Namespace(
        device=args.device, dtype=args.dtype, compile=compiled, systems=None, stages=False, synthlong=0,
        warm=bench.COMPILED if compiled else bench.BANK,
    )  # fmt: skip
    rows = bench.measure(model, size, objects, frames, wanted)
    kept = ("system", "ms", "p95 ms", "times sam2", "rows per frame")
    return {"size": rows[0]["size"], "systems": [{name: row[name] for name in kept if name in row} for row in rows]}


def promised(settings: Settings, args: argparse.Namespace) -> dict[str, Any]:
    """A line for each promise, to be pasted into a report."""
    found = promises.check(settings.memory_model, args.device, settings.objects)
    print("\n".join(map(str, found)), flush=True)
    return {"broken": sum(each.kept is False for each in found), "lines": [str(each) for each in found]}


def half_precision(models: tuple[tuple[str, int | None], ...], args: argparse.Namespace) -> dict[str, Any]:
    """Whether each model stays finite in float16, and what share of pixels it gives as in float32."""
    found: dict[str, Any] = {}
    online = Sam2LongConfig(emit="online")
    for model, size in models:
        full = bench.build(model, size, args.device, "float32")
        found[f"{model} finite"] = is_finite_in(torch.float16, full.steps())
        ((images, ids),) = bench.clips(10, 1)
        masks = []
        for dtype in ("float32", "float16"):
            predictor = SAM2LongVideoPredictor.from_sam2(full, online, dtype)
            state = bench.prompted(predictor, images, ids[0], 1)
            masks.append(torch.cat([logits > 0 for _, _, logits in predictor.propagate_in_video(state)]))
        found[f"{model} same pixels"] = float((masks[0] == masks[1]).float().mean())
    return found


def memory(model: str, at: tuple[int, int], args: argparse.Namespace) -> dict[str, Any]:
    """MiB in use at two frames of a stream with three objects."""
    predictor = _online(bench.build(model, None, args.device, args.dtype))
    video = bench_long.LongVideo(at[1])
    state = predictor.init_stream(video[0])
    for obj_id in range(1, bench_long.OBJECTS + 1):
        predictor.add_new_mask(state, 0, obj_id, video.mask(obj_id))
    seen = {}
    for frame in range(1, at[1] + 1):
        predictor.track(state, video[frame])
        if frame in at:
            gc.collect()
            seen[f"MiB at frame {frame}"] = round(_in_use(args.device) / 2**20, 1)
    return seen


def _in_use(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated(device)
    import psutil

    return psutil.Process().memory_info().rss


def _online(predictor: SAM2LongVideoPredictor) -> SAM2LongVideoPredictor:
    return SAM2LongVideoPredictor.from_sam2(predictor, Sam2LongConfig(emit="online"), predictor.dtype)


def _tried(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return step()
    except Exception as error:  # one step's fault must not cost the day
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def page(found: dict[str, Any]) -> str:
    """The table that goes into docs/performance.md."""
    rows, notes = [], []
    for name, step in found["steps"].items():
        if "systems" in step:
            for system in step["systems"]:
                what = name.removeprefix("speed of ")
                figures = f"{system['ms']:.1f}", f"{system['times sam2']:.2f}"
                rows.append([what, str(step["size"]), system["system"], *figures])
        elif "lines" in step:
            notes += [f"- {line}" for line in step["lines"]]
        else:
            notes.append(f"- {name}: " + ", ".join(f"{key} {value}" for key, value in step.items()))
    table = markdown_table(["model", "size", "system", "ms a frame", "times sam2"], rows)
    where = ", ".join(str(found[name]) for name in ("card", "machine")) + (
        f", torch {found['torch']}, dtype {found['dtype']}, commit {found['commit']}."
    )
    return "\n\n".join([where, table, "\n".join(notes)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

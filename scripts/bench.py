"""Speed of SAM2Long beside plain sam2: the same weights, frames and device, in one process, frame by frame in turn.

    python scripts/bench.py --quick       # nano and SAM 2.1 tiny at 512 px; under two minutes on two idle cores
    python scripts/bench.py --models nano sam2.1-base-plus --sizes 512 1024 --objects 1 5 20 --out runs/bench

Writes bench.csv, bench.md and bench.png to --out. Every system takes its turn over the same frames, so whatever else
the machine does hits all of them: one frame a turn, or as many as ours sends through the image encoder at a time (two
of nano's 256 px). Medians and p95 are those of turns and leave out the frames until the memory banks are full; "times
sam2" is the median over the rounds of a system's time by plain sam2's in the same round. On a CPU the process's CPU
time is given as well, which other jobs disturb less (with --threads 1: threads that wait count).
All systems read one folder of JPEGs: sam2 all of it when it opens the video, ours each frame in its turn. What opening
takes is spread over the frames, so that a figure counts from the files to the last mask. Meta's models run with
seeded random weights whose heads are spread so that the object is there: speed does not depend on what they find.
Memory over thousands of frames is in bench_long.py.

Systems: plain sam2 (its own class, one object after the other); ours with everything off; `agree`: three pathways
that never part (every frame certain); `distinct`: three that always differ (no frame certain); `distinct, sparse`: the
same with memory_tokens="sparse"; `default`: as it comes, pathways as they fall, and what is small in a window of its
own (nano only: random weights say nothing about either). With --compile also `agree, compiled`: ours with
compile=True; and `sam2, vos_optimized`: sam2's compiled predictor, where torch can compile it.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import matplotlib
import numpy as np
import pandas as pd
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))

from eval.machine import describe
from eval.report import markdown_table
from eval.trackers import as_sam2
from sam2long import Sam2LongConfig, SAM2LongVideoPredictor, build_sam2long_video_predictor
from sam2long.errors import ModelError
from sam2long.method import tree
from sam2long.network.compiled import STEADY
from sam2long.synthetic import SYNTHLONG, generate
from sam2long.synthetic.scenarios import MOST_OBJECTS
from sam2long.weights import CHECKPOINTS

BANK = 8  # frames until the spatial memories of a bank are full
POINTERS = 17  # until the pointers are
COMPILED = POINTERS + STEADY + 1  # until what is compiled is: anew while the banks grow, then for their last size
CERTAIN, UNCERTAIN = 0.0, 1e9  # thresholds that make every frame, or none, certain
EVERY_DIGIT = 15  # decimals
ONLINE = {"emit": "online"}  # a frame's work within that frame's turn; the network does the same either way
TREE = ONLINE | {"close_up": False, "redraw": False}  # the encoder's work is plain sam2's
CONFIGS = {
    "ours, all off": Sam2LongConfig(num_pathways=1, object_aware_memory=False, modulation=(1, 1), **TREE),
    "agree": Sam2LongConfig(certainty_threshold=CERTAIN, **TREE),
    "agree, compiled": Sam2LongConfig(certainty_threshold=CERTAIN, **TREE),
    "distinct": Sam2LongConfig(certainty_threshold=UNCERTAIN, **TREE),
    "distinct, sparse": Sam2LongConfig(certainty_threshold=UNCERTAIN, memory_tokens="sparse", **TREE),
    "default": Sam2LongConfig(**ONLINE),
}
PLAIN, OPTIMIZED = "plain sam2", "sam2, vos_optimized"
AS_THEY_FALL = ("default",)
STAGES = ("decode", "encoder", "assemble", "memory read", "decoder", "tree", "memory write", "output")


@dataclass
class Clock:
    """Seconds per stage of a frame. On a GPU every stage is synchronised, which slows the frame: only with --stages."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def wrap(self, stage: str, call: Callable) -> Callable:
        def timed(*args, **kwargs):
            begin, before = self.now(), sum(self.seconds.values())
            result = call(*args, **kwargs)
            inside = sum(self.seconds.values()) - before  # what stages within this one took is theirs
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self.now() - begin - inside
            return result

        return timed


@contextmanager
def patched(clock: Clock) -> Iterator[None]:
    """Every stage of our way of a frame on the clock."""
    from sam2long import predictor
    from sam2long.network import bank
    from sam2long.network.batched import Batched
    from sam2long.network.sam2 import Sam2Network
    from sam2long.tracking import session, track
    from sam2long.tracking.frames import FrameReader

    places = [
        (FrameReader, "encode", "decode"), (Batched, "encode", "encoder"), (Sam2Network, "decode", "decoder"),
        (bank, "assemble", "assemble"), (Sam2Network, "read", "memory read"),
        (Batched, "remember", "memory write"),
        (track.Track, "decide", "tree"), (track.Track, "grow", "tree"), (track.Track, "readings", "tree"),
        (session.Session, "_stepped", "tree"), (session.Session, "_filled", "output"),
        (predictor.SAM2LongVideoPredictor, "_video_masks", "output"),
    ]  # fmt: skip
    with ExitStack() as stack:
        for owner, name, stage in places:
            original = getattr(owner, name)
            setattr(owner, name, clock.wrap(stage, original))
            stack.callback(setattr, owner, name, original)
        yield


def build(model: str, size: int | None, device: str | None, dtype: str) -> SAM2LongVideoPredictor:
    """nano with its weights; Meta's shapes with random ones, spread so that the object is there."""
    import warnings

    overrides = [f"++model.image_size={size}"] if size else []
    torch.manual_seed(0)
    if model == "nano":
        return build_sam2long_video_predictor(
            "nano", device=device, apply_postprocessing=False, hydra_overrides_extra=overrides, dtype=dtype
        )
    if model not in CHECKPOINTS:
        raise ModelError(f"{model!r} is not a model; the models are {', '.join(CHECKPOINTS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the weights are random": they are meant to be
        built = build_sam2long_video_predictor(
            CHECKPOINTS[model].config, device=device, apply_postprocessing=False, hydra_overrides_extra=overrides,
            dtype=dtype,
        )  # fmt: skip
    with torch.no_grad():
        decoder = built.sam_mask_decoder
        decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        decoder.iou_prediction_head.layers[-1].weight.mul_(30)
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(20)
    return built


def clips(frames: int, objects: int, videos: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images, ids) of one generated video, or of `videos` of synthlong's, from all over the list."""
    there = min(objects, MOST_OBJECTS)
    scenes = [generate("long", seed=7, num_frames=frames, size=128, num_objects=there)]
    if videos:
        chosen = [SYNTHLONG[at * len(SYNTHLONG) // videos] for at in range(videos)]
        scenes = [generate(v.scenario, v.seed, v.num_frames, 128, there) for v in chosen]
    made = [[(frame.image, frame.ids) for frame in islice(scene, frames)] for scene in scenes]
    return [(np.stack([image for image, _ in one]), np.stack([ids for _, ids in one])) for one in made]


def prompted(predictor, images: np.ndarray, first: np.ndarray, objects: int):
    """A state with every object's mask on frame 0; objects that are not in sight there get a box of pixels."""
    with jpegs(images) if not isinstance(predictor, SAM2LongVideoPredictor) else nullcontext(images) as video:
        state = predictor.init_state(video)
    return give_masks(predictor, state, first, objects)


def give_masks(predictor, state, first: np.ndarray, objects: int):
    for obj_id in range(1, objects + 1):
        mask = first == obj_id
        if not mask.any():
            mask = np.zeros_like(mask)
            mask[4 * obj_id : 4 * obj_id + 12, 8:24] = True
        predictor.add_new_mask(state, 0, obj_id, mask)
    return state


@contextmanager
def jpegs(images: np.ndarray) -> Iterator[str]:
    """A folder of frames, as sam2 reads them."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            Image.fromarray(image).save(Path(folder) / f"{i:05d}.jpg", quality=95)
        yield folder


@dataclass
class Taken:
    """What one system's frames took once the banks were full, per frame; an entry for each turn."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    rows: int = 0
    frames: int = 0


def measure(model: str, size: int | None, objects: int, frames: int, args: argparse.Namespace) -> list[dict]:
    """One row per system: median and p95 of the seconds per frame, and the stages of ours."""
    predictor = build(model, size, args.device, args.dtype)
    device, mixed = predictor.device, predictor.compute_dtype()
    names = [n for n in CONFIGS if (model == "nano" or n not in AS_THEY_FALL) and (args.compile or "compiled" not in n)]
    if args.systems:
        names = [n for n in names if n in args.systems]
    systems = {PLAIN: as_sam2(predictor)}
    if args.compile and (optimized := vos_optimized(predictor, objects)):
        systems[OPTIMIZED] = optimized
    systems |= {n: SAM2LongVideoPredictor.from_sam2(predictor, CONFIGS[n]) for n in names}
    if "agree, compiled" in systems:
        systems["agree, compiled"].compile_model()
    clock, taken = Clock(device), {n: Taken() for n in systems}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if mixed != torch.float32:
            stack.enter_context(torch.autocast(device.type, dtype=mixed))
        if args.stages or device.type != "cuda":
            stack.enter_context(patched(clock))
        for images, ids in clips(frames, objects, args.synthlong if model == "nano" else 0):
            with jpegs(images) as folder:
                in_turns(systems, folder, len(images), ids[0], objects, clock, taken, args.warm)
    plain = taken[PLAIN]
    rows = []
    for n, own in taken.items():
        row = {"model": model, "size": predictor.image_size, "objects": objects, "system": n}
        row |= {"ms": 1e3 * np.median(own.seconds), "p95 ms": 1e3 * np.quantile(own.seconds, 0.95)}
        row["times sam2"] = ratio(own.seconds, plain.seconds)
        if device.type == "cpu":
            row |= {"CPU ms": 1e3 * np.median(own.cpu), "CPU times sam2": ratio(own.cpu, plain.cpu)}
        if n in CONFIGS:
            row["rows per frame"] = own.rows / own.frames
            row |= stages(own.stages, sum(own.seconds))
        rows.append(row)
        print(f"  {n:>17}: {row['ms']:9.1f} ms, {row['times sam2']:.2f} of sam2", flush=True)
    return rows


def ratio(own: list[float], plain: list[float]) -> float:
    """Median over the rounds: a machine that changes its pace changes it for neighbours alike."""
    return float(np.median(np.divide(own, plain)))


def vos_optimized(predictor: SAM2LongVideoPredictor, objects: int) -> Any:
    """sam2's predictor of that name with the same weights; None, and a line that says why, where it does not run."""
    from sam2.sam2_video_predictor import SAM2VideoPredictorVOS
    from torch._dynamo.exc import TorchDynamoException

    optimized = copy.deepcopy(as_sam2(predictor))  # it compiles its modules in place
    optimized.__class__ = SAM2VideoPredictorVOS
    optimized._compile_all_components()
    ((images, ids),) = clips(4, objects)
    try:
        for _ in optimized.propagate_in_video(prompted(optimized, images, ids[0], objects)):
            pass
    except (TorchDynamoException, RuntimeError) as error:
        print(f"  {OPTIMIZED} does not run here: {str(error).strip().splitlines()[0]}", flush=True)
        return None
    return optimized


def in_turns(
    systems: dict[str, Any], folder: str, length: int, first: np.ndarray, objects: int, clock: Clock,
    taken: dict[str, Taken], warm: int,
) -> None:  # fmt: skip
    """Every system over one clip, each taking a turn of a few frames after the other."""
    states, opening, opening_cpu = {}, {}, {}
    for n, p in systems.items():
        begin, worked = clock.now(), time.process_time()
        state = p.init_state(folder)
        opening[n], opening_cpu[n] = (clock.now() - begin) / length, (time.process_time() - worked) / length
        states[n] = give_masks(p, state, first, objects)
    runs = {n: p.propagate_in_video(states[n]) for n, p in systems.items()}
    for run in runs.values():
        next(run)
    ours = [n for n in systems if n in CONFIGS]
    turn = max((states[n].session.model.frames_per_pass for n in ours), default=1)
    turns, order = (length - 1) // turn, deque(runs)
    for number in range(turns):
        order.rotate(1)  # nobody is always the one after the slowest
        for n in order:
            clock.seconds = {}
            begin, worked = clock.now(), time.process_time()
            with differing(n):
                for _ in range(turn):  # one pass of the encoder, and all its frames
                    next(runs[n])
            seconds, cpu = clock.now() - begin, time.process_time() - worked
            if number * turn >= warm:
                taken[n].seconds.append(seconds / turn + opening[n])
                taken[n].cpu.append(cpu / turn + opening_cpu[n])
                taken[n].stages.append({stage: value / turn for stage, value in clock.seconds.items()})
    for n in ours:
        taken[n].rows += states[n].rows_read
        taken[n].frames += turns * turn


@contextmanager
def differing(system: str) -> Iterator[None]:
    """Where no frame is certain, all candidates count as different masks, also those whose IoUs would round alike."""
    before = tree.IOU_DECIMALS
    if system in CONFIGS and CONFIGS[system].certainty_threshold == UNCERTAIN:
        tree.IOU_DECIMALS = EVERY_DIGIT
    try:
        yield
    finally:
        tree.IOU_DECIMALS = before


def stages(frames: list[dict[str, float]], total: float) -> dict[str, float]:
    """Share of each stage in the time of these frames, in percent, and of what is neither network nor decoding."""
    if not any(frames):
        return {}
    shares = {f"% {s}": 100 * sum(frame.get(s, 0.0) for frame in frames) / total for s in STAGES}
    network = sum(shares[f"% {s}"] for s in ("decode", "encoder", "memory read", "decoder", "memory write"))
    return shares | {"% overhead": 100 - network}


def machine(args: argparse.Namespace) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    load = os.getloadavg()[0]
    return (
        f"{describe()}, {torch.get_num_threads()} torch threads, load {load:.1f} at the start; "
        f"torch {torch.__version__}, Python {platform.python_version()}, dtype {args.dtype}, commit {commit.strip()}"
    )


def decoding(size: int, frames: int = 48) -> float:
    """CPU milliseconds to decode a 1080p H.264 frame and make it a model input of `size`: the reading thread."""
    from sam2long.video import VideoWriter, open_source, to_model_input

    prepare = partial(to_model_input, image_size=size)
    ((images, _),) = clips(4, 1)
    big = [np.repeat(np.repeat(image, 9, 0), 15, 1)[:1080, :1920] for image in images]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, 25, *reversed(big[0].shape[:2])) as writer:
            for t in range(frames):
                writer.write(big[t % len(big)])
        with closing(open_source(str(path))) as source:
            begin = time.process_time()
            count = sum(1 for _ in source.iter_from(0, prepare=prepare))
            return 1e3 * (time.process_time() - begin) / count


def figure(table: pd.DataFrame, path: Path) -> None:
    cases = list(table.groupby(["model", "size", "objects"], sort=False))
    fig, axes = plt.subplots(1, len(cases), figsize=(2.6 + 2.4 * len(cases), 3.8), squeeze=False, layout="constrained")
    for axis, ((model, size, objects), rows) in zip(axes[0], cases, strict=True):
        axis.barh(rows["system"], rows["times sam2"], color=["grey", *["tab:blue"] * (len(rows) - 1)])
        axis.axvline(1, color="black", lw=0.8)
        axis.invert_yaxis()
        axis.set_title(f"{model}, {size} px, {objects} obj.", fontsize=9)
        axis.set_xlabel("time per frame / plain sam2", fontsize=8)
        axis.tick_params(labelsize=7)
        if axis is not axes[0][0] and list(rows["system"]) == list(cases[0][1]["system"]):
            axis.set_yticklabels([])
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--models", nargs="+", default=["nano", "sam2.1-tiny"], metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=[512], help="input sizes of Meta's models")
    parser.add_argument(
        "--objects", nargs="+", type=int, default=[1, 5], help="numbers of objects; Meta's models: the first"
    )
    parser.add_argument("--frames", type=int, default=60, help="of nano; Meta's models take a third")
    parser.add_argument("--synthlong", type=int, default=0, metavar="N", help="nano on N videos of synthlong")
    parser.add_argument("--systems", nargs="+", choices=list(CONFIGS), metavar="NAME", help="beside plain sam2")
    parser.add_argument("--compile", action="store_true", help="compile=True as well; the first frames take minutes")
    parser.add_argument("--stages", action="store_true", help="time the stages on a GPU too; slows every frame")
    parser.add_argument("--all-objects", action="store_true", help="every number of objects with every model")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.quick:
        args.models, args.sizes, args.objects, args.frames = ["nano", "sam2.1-tiny"], [512], [1, 5], 33
    args.warm = COMPILED if args.compile else BANK
    short = max(args.warm + 4, args.frames // 3)
    fewest = 2 * args.warm + 1
    if args.frames < fewest:
        parser.error(f"--frames is {args.frames}; expected {fewest} or more: the memory banks fill first")
    where, begin, rows = machine(args), time.monotonic(), []
    for model in args.models:
        for size in [None] if model == "nano" else args.sizes:
            many = args.objects if model == "nano" or args.all_objects else args.objects[:1]
            for objects in many:
                print(f"{model}, {f'{size} px, ' if size else ''}{objects} objects", flush=True)
                rows += measure(model, size, objects, args.frames if model == "nano" else short, args)
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "bench.csv", index=False)
    figure(table, args.out / "bench.png")
    plain = [c for c in table.columns if not c.startswith("%")]
    shares = ["model", "size", "objects", "system", *[c for c in table.columns if c.startswith("%")]]
    sizes = sorted(set(table["size"]))
    read = ", ".join(f"{decoding(size):.1f} ms at {size} px" for size in sizes)
    parts = [where + ".", _markdown(table, plain)]
    parts.append(f"Decoding a 1080p H.264 frame and resizing it, CPU time in a thread of its own: {read}.")
    if shares[-1].startswith("%"):
        ours = table[table[shares[-1]].notna()]
        parts += ["Share of each stage in the time of a frame, in percent:", _markdown(ours, shares)]
    (args.out / "bench.md").write_text("\n\n".join(parts) + "\n")
    print(f"{args.out}/bench.md, bench.csv, bench.png; {time.monotonic() - begin:.0f} s")
    return 0


def _markdown(table: pd.DataFrame, columns: list[str]) -> str:
    return markdown_table(columns, [[_cell(row[c]) for c in columns] for _, row in table.iterrows()])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

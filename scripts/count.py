"""What a frame costs on a GPU, counted and not timed: ours beside plain sam2, on Meta's models at 1024 px.

    python scripts/count.py                                    # the table; a few minutes on a CPU
    python scripts/count.py --docs docs/performance.md         # and a short one there, between its marks

Runs on a pretended CUDA device that computes nothing (tests/rehearsal): random weights, bfloat16 by autocast, spatial
memories full, and made-up numbers where the decoder's are read. Counted are the operators that launch a kernel, FLOPs
of matrix products and convolutions, bytes that operators read and write (each operator by itself: caches help both),
and peak memory of the device with the weights. The roofline of a card adds up, operator by operator, the longer of its
FLOPs at the card's peak and its bytes at the card's bandwidth. It leaves out launches and waits; no card reaches it.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import bench

from eval.report import markdown_table
from eval.trackers import as_sam2
from sam2long import SAM2LongVideoPredictor
from sam2long.atomic import replacing
from tests.rehearsal.counting import Counts, counted, counted_plain
from tests.rehearsal.device import PretendedCuda
from tests.rehearsal.ledger import Work

MODELS = ("sam2.1-tiny", "sam2.1-small", "sam2.1-base-plus", "sam2.1-large")
SYSTEMS = ("agree", "distinct", "distinct, sparse")  # of bench.CONFIGS
FRAMES = 4  # counted: one checkpoint
BEGIN, END = "<!-- counted: written by scripts/count.py --docs -->", "<!-- /counted -->"


@dataclass(frozen=True)
class Card:
    """A data sheet's figures: dense FLOPs a second in bfloat16 on tensor cores and in float32, bytes a second."""

    name: str
    low: float
    float32: float
    bandwidth: float

    def seconds(self, work: Work) -> float:
        return max(work.flops / (self.low if work.low else self.float32), work.bytes / self.bandwidth)


CARDS = (
    Card("A100 SXM 80 GB", 312e12, 19.5e12, 2.039e12),
    Card("H100 SXM", 989e12, 67e12, 3.35e12),
    Card("RTX 4090", 165e12, 82.6e12, 1.008e12),
)
COLUMNS = ("kernels", "GFLOP", "GB", "peak MiB", *(f"{card.name}, ms" for card in CARDS))


def made_up() -> Callable[[Tensor], Tensor]:
    """Numbers for what is read of the device: IoUs and logits of an object that is there, no two alike."""
    generator = torch.Generator().manual_seed(0)

    def numbers(shape: tuple[int, ...]) -> Tensor:
        return 0.5 + 0.45 * torch.rand(shape, generator=generator)

    def answer(tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.uint8:
            return numbers(tensor.shape).to(tensor.dtype)
        count = tensor.numel()  # numbers come packed as bytes (network/devices.py: Outgoing), and are float32
        return numbers((count // 4 + 1,)).view(torch.uint8)[:count].view(tensor.shape)

    return answer


def counts_of(model: str, objects: list[int], video: str, size: int) -> Iterator[tuple[int, str, int, Counts]]:
    """(objects, system, rows of the network's batch, what frames cost) of one model, which is built and moved once."""
    built = bench.build(model, size, "cpu", "bfloat16")
    with PretendedCuda(compute=False, answer=made_up()) as gpu, torch.inference_mode():
        built.to("cuda:0")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            for many in objects:
                for system in (bench.PLAIN, *SYSTEMS):
                    plain = system == bench.PLAIN
                    config = bench.CONFIGS.get(system)
                    predictor = as_sam2(built) if plain else SAM2LongVideoPredictor.from_sam2(built, config, "bfloat16")
                    gc.collect()  # the state of the system before
                    state = prompted(predictor, video, many)
                    run = predictor.propagate_in_video(state)
                    with bench.differing(system):
                        counts = (counted_plain if plain else counted)(gpu, run, bench.BANK, FRAMES)
                    yield many, system, many if plain else rows_of(state), counts
                    del run, state


def prompted(predictor: Any, video: str, objects: int) -> Any:
    state = predictor.init_state(video)
    for obj_id in range(1, objects + 1):
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[4 * obj_id : 4 * obj_id + 20, 10:30] = True
        predictor.add_new_mask(state, 0, obj_id, mask)
    return state


def rows_of(state: Any) -> int:
    """Pathways that differ, of all objects."""
    return sum(len(track.now.leaves()) for obj in state.session.objects.values() for track in obj.tracks.values())


def figures(counts: Counts) -> dict[str, float]:
    """Per frame, by COLUMNS."""
    launched, flops, moved = (counts.mean(what) for what in ("launched", "flops", "bytes"))
    peak = max(frame.peak for frame in counts.frames)
    seconds = [[sum(map(card.seconds, frame.work)) for frame in counts.frames] for card in CARDS]
    milliseconds = (1e3 * sum(each) / len(each) for each in seconds)
    return dict(zip(COLUMNS, (launched, flops / 1e9, moved / 1e9, peak / 2**20, *milliseconds), strict=True))


def rows(models: list[str], objects: list[int], size: int) -> Iterator[list[str]]:
    """Model, objects, system, rows of its batch, then `figures`: plain sam2's as they are, ours as ratios to them."""
    with tempfile.TemporaryDirectory() as video:
        for t in range(bench.BANK + FRAMES + 2):
            Image.new("RGB", (64, 64), (t, 99, 99)).save(Path(video) / f"{t:05d}.jpg")
        for model in models:
            for many, system, batch, counts in counts_of(model, objects, video, size):
                own = figures(counts)
                if system == bench.PLAIN:
                    plain = own
                    cells = [_short(value) for value in own.values()]
                else:
                    cells = [f"{own[name] / plain[name]:.2f}" for name in plain]
                yield [model, str(many), system, str(batch), *cells]


def table(counted: list[list[str]]) -> str:
    made = [[*row[:4], *(each if row[2] == bench.PLAIN else f"× {each}" for each in row[4:])] for row in counted]
    return markdown_table(["model", "objects", "per frame", "rows", *COLUMNS], made)


def short_table(counted: list[list[str]]) -> str:
    """A line for each model and number of objects, as far as all systems have been counted."""
    made: dict[tuple[str, str], dict[str, list[str]]] = {}
    for model, many, system, _, *cells in counted:
        made.setdefault((model, many), {})[system] = cells
    lines = []
    for (model, many), of in made.items():
        if set(of) == {bench.PLAIN, *SYSTEMS}:
            ratios = [[*of[system][:4], max(of[system][4:], key=float)] for system in SYSTEMS]
            cells = ["/".join(each) for each in (*ratios, of[bench.PLAIN][4:])]
            lines.append([f"{model.removeprefix('sam2.1-')}, {many}", *cells])
    cards = "/".join(card.name.split()[-1 if card.name.startswith("RTX") else 0] for card in CARDS)
    header = ["model, objects", *SYSTEMS, f"ms of sam2: {cards}"]
    return "\n".join(f"|{'|'.join(line)}|" for line in (header, ["-"] * len(header), *lines))


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=(*MODELS, "nano"), metavar="NAME")
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--size", type=int, default=1024, help="side of the model's input")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="a page with the two marks")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    page = args.docs.read_text(encoding="utf-8") if args.docs else f"{BEGIN}{END}"
    if BEGIN not in page or END not in page:
        parser.error(f"{args.docs} lacks the marks {BEGIN} and {END}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    said = (
        f"`python scripts/count.py`, commit {commit.strip()}, torch {torch.__version__.split('+')[0]}, {args.size} px:"
    )
    counted: list[list[str]] = []
    for row in rows(args.models, args.objects, args.size):
        counted.append(row)
        print(row, file=sys.stderr, flush=True)
        if args.docs:  # what has been counted is kept, however the rest ends
            write(args.docs, f"{BEGIN}\n{said}\n\n{short_table(counted)}\n{END}")
    print(table(counted))
    return 0


def write(docs: Path, counted: str) -> None:
    page = docs.read_text(encoding="utf-8")
    page = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: counted, page, flags=re.DOTALL)
    with replacing(docs) as partial:
        partial.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

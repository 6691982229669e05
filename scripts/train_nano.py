"""Train the embedded nano model from scratch on generated videos, SAM 2's recipe in small.

    python scripts/train_nano.py train --out runs/nano --minutes 110     # resumes when runs/nano/last.pt exists
    python scripts/train_nano.py train --out runs/more --minutes 60 --init sam2long/models/nano.safetensors --begin 0.94
    python scripts/train_nano.py eval  --weights sam2long/models/nano.safetensors
    python scripts/train_nano.py plot  --out runs/nano --to runs/nano/curves.png

The schedule (learning rate, clip length, scenarios) follows the share of the minutes already spent, so an interrupted
run goes on where it stopped, and a slower machine gets fewer steps of the same curriculum. The parts are in
scripts/nano/.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from nano import curves
from nano.network import MODELS, load
from nano.prompts import PROMPTS
from nano.scoring import summary, track_clips
from nano.training import train


def evaluate(args: argparse.Namespace) -> None:
    """Held-out scores of the model card, as one JSON line per scenario and prompt."""
    torch.set_num_threads(args.threads)
    model = load(Path(args.weights), args.device)
    for scenario in args.scenarios:
        for prompt in args.prompts:
            start = time.time()
            found = summary(track_clips(model, scenario, args.clips, args.frames, prompt, args.seed))
            row = {"scenario": scenario, "prompt": prompt, "clips": args.clips, "frames": args.frames}
            row |= {k: round(v, 3) for k, v in found.items()} | {"seconds": round(time.time() - start, 1)}
            print(json.dumps(row), flush=True)


def plot(args: argparse.Namespace) -> None:
    curves.plot(Path(args.out), Path(args.to))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("train")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--minutes", type=float, default=110)
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--ranks", type=int, default=2, help="processes that share each batch; 1 on a GPU")
    p.add_argument("--threads", type=int, default=1, help="per rank: one is fastest")
    p.add_argument("--producers", type=int, default=0, help="processes that make clips; 8 or more beside a GPU")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--bf16", action="store_true", help="where the processor is fast at it")
    p.add_argument("--log-every", type=int, default=25)
    p.add_argument("--score-minutes", type=float, default=6)
    p.add_argument("--fresh-optimiser", action="store_true")
    p.add_argument("--init", metavar="FILE", help="start from these weights (safetensors) instead of random ones")
    p.add_argument("--begin", type=float, default=0.0, help="share of the curriculum to begin at, with --init")
    p.set_defaults(run=train)
    p = sub.add_parser("eval", help="held-out scores of exported weights")
    p.add_argument("--weights", default=str(MODELS / "nano.safetensors"))
    p.add_argument("--scenarios", nargs="+", default=["easy", "occlusion", "reappear", "twins", "crowd", "long"])
    p.add_argument("--prompts", nargs="+", default=["mask", "box"], choices=PROMPTS)
    p.add_argument("--clips", type=int, default=20)
    p.add_argument("--frames", type=int, default=100)
    p.add_argument("--seed", type=int, default=900_000, help="of the first clip")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.set_defaults(run=evaluate)
    p = sub.add_parser("plot", help="learning curves of a run")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--to", default="runs/nano/curves.png")
    p.set_defaults(run=plot)
    args = parser.parse_args(argv)
    if args.run is train:
        if not 0 <= args.begin < 1:
            parser.error(f"--begin is {args.begin}; expected a share of the curriculum, from 0 to below 1")
        if args.begin and not args.init:
            parser.error("--begin leaves out the first lessons, which random weights need; give --init FILE with it")
        if args.init and not Path(args.init).is_file():
            parser.error(f"--init {args.init} is not there; give weights that this script wrote")
    return args


def main() -> None:
    args = arguments()
    args.run(args)


if __name__ == "__main__":
    main()

"""Train the embedded nano model on photographs and generated videos, SAM 2's recipe in small.

    python scripts/train_nano.py train --photos DIR --minutes 240   # again: goes on where it stopped
    python scripts/train_nano.py train --photos DIR --minutes 8 --device cuda --bf16 --producers 14
    python scripts/train_nano.py train --photos DIR --out runs/more --init FILE --begin 0.5 --minutes 60
    python scripts/train_nano.py draw --photos DIR --to DRAWN        # masks drawn anew by MobileSAM, to train on
    python scripts/train_nano.py eval --photos DIR
    python scripts/train_nano.py clips --photos DIR --to composed   # held-out clips as a data set, for ablate.py
    python scripts/train_nano.py plot

A new training begins with an ImageNet trunk (`pip install '.[train]'`); one from `--init` needs nothing more.
The schedule (learning rate, clip length, scenarios) follows the share of the minutes already spent, so an interrupted
run goes on where it stopped, and a slower machine gets fewer steps of the same curriculum. The parts are in
scripts/nano/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from nano import curves, drawn
from nano.curriculum import SIZE
from nano.dataset import write_composed
from nano.network import MODELS, export, load, set_size
from nano.photos import HELD_OUT, PhotosError, read_photos, split
from nano.prompts import PROMPTS
from nano.scoring import COMPOSED, asked_photos, held_out_clips, prompt_photos, summary, track_clips
from nano.training import train

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor, build_sam2long_video_predictor
from sam2long.synthetic import SCENARIOS

PHOTOS = "folders of photographs: DIR/images with DIR/labels (YOLO polygons) or DIR/masks (palette PNGs); never DAVIS"


def evaluate(args: argparse.Namespace) -> None:
    """Held-out scores of the model card, as one JSON line per scenario and prompt."""
    torch.set_num_threads(args.threads)
    model = load(Path(args.weights), args.device)
    set_size(model, args.size)
    kept_out = split(read_photos(args.photos), args.held_out)[1] if args.photos else []
    if kept_out:
        found = prompt_photos(model, kept_out)
        print(json.dumps({"from": "stills"} | {k: round(v, 3) for k, v in found.items()}), flush=True)
        for stills in (False, True):
            predictor = SAM2LongVideoPredictor.from_sam2(model, Sam2LongConfig(stills=stills))
            found = asked_photos(predictor, kept_out)
            row = {"from": "predictor", "stills": stills} | {k: round(v, 3) for k, v in found.items()}
            print(json.dumps(row), flush=True)
    for source in args.sources or [*SCENARIOS, *(COMPOSED if kept_out else ())]:
        pictures = held_out_clips(source, args.clips, args.frames, kept_out, args.seed, args.size)
        for prompt in args.prompts:
            start = time.time()
            found = summary(track_clips(model, pictures, prompt, args.seed))
            row = {"from": source, "prompt": prompt, "clips": args.clips, "frames": args.frames}
            row |= {k: round(v, 3) for k, v in found.items()} | {"seconds": round(time.time() - start, 1)}
            print(json.dumps(row), flush=True)


def write_clips(args: argparse.Namespace) -> None:
    """Held-out clips in DAVIS 2017's layout: videos on which a setting may be chosen."""
    kept_out = split(read_photos(args.photos), args.held_out)[1]
    root = write_composed(kept_out, Path(args.to), args.clips, args.frames, args.seed)
    print(f"{root}: python scripts/ablate.py --dataset davis17-val --root {root} --out runs/composed")


def draw(args: argparse.Namespace) -> None:
    """Photographs with masks that MobileSAM drew: of each folder in the same order, so the same are held out."""
    predictor = build_sam2long_video_predictor("nano", device="cpu")
    for folder in args.photos:
        to = Path(args.to) / folder.resolve().name
        if to.exists():
            raise PhotosError(f"{to} is there already; give another --to")
        count = drawn.write(predictor, read_photos([folder]), to)
        print(f"{to}: {count} objects drawn anew")


def mix(args: argparse.Namespace) -> None:
    """The mean of two weights, which keeps what each does well (WiSE-FT, arXiv 2109.01903)."""
    before, after = (load(Path(path)).state_dict() for path in (args.before, args.after))
    model = load(Path(args.after))
    model.load_state_dict({name: torch.lerp(before[name], value, args.share) for name, value in after.items()})
    export(model, Path(args.to))
    print(f"{args.to}: {args.share:g} of {args.after}, the rest {args.before}")


def plot(args: argparse.Namespace) -> None:
    curves.plot(Path(args.out), Path(args.to))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("train")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--photos", metavar="DIR", nargs="+", type=Path, help=PHOTOS)
    p.add_argument(
        "--held-out", type=float, default=HELD_OUT, help="share of the photographs not trained on, evenly by name"
    )
    p.add_argument("--minutes", type=float, default=110)
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--ranks", type=int, help="processes that share each batch; default: 2, on a GPU 1")
    p.add_argument("--wide", type=float, help="clips per step, times the curriculum's; default: 1, on a GPU 8")
    p.add_argument("--threads", type=int, default=1, help="per rank: one is fastest")
    p.add_argument("--producers", type=int, default=0, help="processes that make clips; 8 or more beside a GPU")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--bf16", action="store_true", help="where the processor is fast at it")
    p.add_argument("--log-every", type=int, default=25)
    p.add_argument("--score-minutes", type=float, default=10)
    p.add_argument("--fresh-optimiser", action="store_true")
    p.add_argument("--init", metavar="FILE", help="start from these weights (safetensors) instead of random ones")
    p.add_argument("--begin", type=float, default=0.0, help="share of the curriculum to begin at, with --init")
    p.set_defaults(run=train)
    p = sub.add_parser("eval", help="held-out scores of exported weights")
    p.add_argument("--weights", default=str(MODELS / "nano.safetensors"))
    p.add_argument("--photos", metavar="DIR", nargs="+", type=Path, help=PHOTOS)
    p.add_argument("--held-out", type=float, default=HELD_OUT, help="the share that was not trained on, to score on")
    p.add_argument("--size", type=int, default=SIZE, help="of the frames, in pixels")
    p.add_argument("--sources", nargs="+", choices=[*SCENARIOS, *COMPOSED], help="default: all that can be had")
    p.add_argument("--prompts", nargs="+", default=["mask", "box"], choices=PROMPTS)
    p.add_argument("--clips", type=int, default=20)
    p.add_argument("--frames", type=int, default=100)
    p.add_argument("--seed", type=int, default=900_000, help="of the first clip")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.set_defaults(run=evaluate)
    p = sub.add_parser("clips", help="clips composed of held-out photographs, as a data set of DAVIS 2017's layout")
    p.add_argument("--photos", metavar="DIR", nargs="+", type=Path, required=True, help=PHOTOS)
    p.add_argument("--held-out", type=float, default=HELD_OUT, help="the share that was not trained on, to compose of")
    p.add_argument("--to", required=True, metavar="DIR", help="new folder")
    p.add_argument("--clips", type=int, default=20, help="of each source")
    p.add_argument("--frames", type=int, default=60)
    p.add_argument("--seed", type=int, default=900_000, help="of the first clip")
    p.set_defaults(run=write_clips)
    p = sub.add_parser("draw", help="photographs with masks that MobileSAM draws from their boxes, to train on")
    p.add_argument("--photos", metavar="DIR", nargs="+", type=Path, required=True, help=PHOTOS)
    p.add_argument("--to", required=True, metavar="DIR", help="folder for them")
    p.set_defaults(run=draw)
    p = sub.add_parser("mix", help="between two weights, of which one was trained on from the other")
    p.add_argument("before", metavar="FILE")
    p.add_argument("after", metavar="FILE")
    p.add_argument("--share", type=float, default=0.7, help="of the later ones")
    p.add_argument("--to", required=True, metavar="FILE", help="safetensors to write")
    p.set_defaults(run=mix)
    p = sub.add_parser("plot", help="learning curves of a run")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--to", default="runs/nano/curves.png")
    p.set_defaults(run=plot)
    args = parser.parse_args(argv)
    if args.run is train:
        beside_gpu = torch.device(args.device).type == "cuda"
        args.ranks = args.ranks or (1 if beside_gpu else 2)
        args.wide = args.wide or (8 if beside_gpu else 1)
        if not 0 <= args.begin < 1:
            parser.error(f"--begin is {args.begin}; expected a share of the curriculum, from 0 to below 1")
        if args.begin and not args.init:
            parser.error("--begin leaves out the first lessons, which random weights need; give --init FILE with it")
        if args.init and not Path(args.init).is_file():
            parser.error(f"--init {args.init} is not there; give weights that this script wrote")
    return args


def main() -> None:
    args = arguments()
    try:
        args.run(args)
    except PhotosError as error:
        raise SystemExit(f"train_nano: {error}") from None


if __name__ == "__main__":
    main()

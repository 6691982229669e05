"""The commands: run, score, check, pack, report. A fault of the user's data is one sentence and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval import protocols
from sam2long.errors import Sam2LongError

EXIT_SOME_VIDEOS_FAILED = 1
EXIT_BAD_INPUT = 2


def _add_score(commands) -> None:
    p = commands.add_parser("score", help="score predictions as an official tool does")
    p.add_argument("--protocol", required=True, choices=protocols.NAMES)
    p.add_argument("--gt", type=Path, required=True, metavar="DIR", help="the data set, or its folder of annotations")
    p.add_argument("--pred", type=Path, required=True, metavar="DIR", help="one folder per video")
    p.add_argument("--out", type=Path, metavar="DIR", help="write scores.json and CSV tables there")
    p.add_argument("--format", choices=("table", "json"), default="table", help="what to print")
    p.add_argument("--non-strict", action="store_true", help="sav, vos-benchmark: score common videos; mosev2: missing = 0")
    p.add_argument("--all-frames", action="store_true", help="sav, vos-benchmark: score the first and last frame too")
    p.add_argument("--gt255-to-0", action="store_true", help="sav, vos-benchmark: 255 in the ground truth is background")
    p.add_argument("--compat-decay", action="store_true", help="davis, vost: decay with the tool's 8-bit frame indices")
    p.add_argument("--set", default="val", dest="set_name", help="davis, vost: list in ImageSets; lvos: the meta file's split")
    p.add_argument("--videos", type=Path, metavar="FILE", help="list of videos to score, instead of the data set's")
    p.add_argument("--meta", type=Path, metavar="FILE", help="lvos, mosev2: meta JSON, if not in the data set")
    p.add_argument("--unseen", type=Path, metavar="FILE", help="lvos: list of unseen videos, instead of the official one")
    p.add_argument("--processes", type=int, metavar="N", help="default: all cores")
    p.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    from eval import score

    scores = score.evaluate(
        args.protocol,
        args.gt,
        args.pred,
        strict=not args.non_strict,
        skip_first_and_last=not args.all_frames,
        gt255_to_0=args.gt255_to_0,
        compat_decay=args.compat_decay,
        set_name=args.set_name,
        videos=args.videos,
        meta=args.meta,
        unseen=args.unseen,
        processes=args.processes,
    )
    if args.out:
        score.write(scores, args.out)
    print(score.as_json(scores) if args.format == "json" else score.as_text(scores))
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m eval", description="Benchmark runs with official-exact scores.")
    commands = top.add_subparsers(required=True, metavar="command")
    for add in (_add_score,):
        add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except Sam2LongError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT

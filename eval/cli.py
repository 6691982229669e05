"""The commands of `python -m eval`. A fault of the user's data is one sentence, exit code 2."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from eval import datasets, pngs, prompting, protocols, trackers
from sam2long.errors import ConfigError, Sam2LongError, sentence

EXIT_SOME_VIDEOS_FAILED = 1
EXIT_BAD_INPUT = 2
VIDEOS = "only these videos, or a file with one name per line"


def _add_score(commands) -> None:
    p = commands.add_parser("score", help="score predictions as an official tool does")
    p.add_argument("--protocol", required=True, choices=protocols.NAMES)
    p.add_argument("--gt", type=Path, required=True, metavar="DIR", help="the data set, or its folder of annotations")
    p.add_argument("--pred", type=Path, required=True, metavar="DIR", help="one folder per video")
    p.add_argument("--out", type=Path, metavar="DIR", help="write scores.json and CSV tables there")
    p.add_argument("--format", choices=("table", "json"), default="table", help="what to print")
    p.add_argument(
        "--non-strict", action="store_true", help="sav, vos-benchmark: only common videos; mosev2: missing is 0"
    )
    p.add_argument("--all-frames", action="store_true", help="sav, vos-benchmark: score the first and last frame too")
    p.add_argument("--gt255-to-0", action="store_true", help="sav, vos-benchmark: 255 in ground truth is background")
    p.add_argument("--compat-decay", action="store_true", help="davis, vost: decay with the tool's 8-bit frame indices")
    p.add_argument("--set", default="val", dest="set_name", help="davis, vost, lvos: the split's name")
    p.add_argument("--videos", metavar="A,B", help=VIDEOS)
    p.add_argument("--meta", type=Path, metavar="FILE", help="lvos, mosev2: meta JSON, if not in the data set")
    p.add_argument("--unseen", type=Path, metavar="FILE", help="lvos: list of unseen videos")
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
        videos=tuple(pngs.names_in(args.videos)) if args.videos else None,
        meta=args.meta,
        unseen=args.unseen,
        processes=args.processes,
    )
    if args.out:
        score.write(scores, args.out)
    print(score.as_json(scores) if args.format == "json" else score.as_text(scores))
    return 0


def add_dataset_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--dataset", required=True, choices=datasets.NAMES)
    p.add_argument("--root", type=Path, metavar="DIR", help="where it lies (synthlong needs none)")
    p.add_argument("--videos", metavar="A,B", help=VIDEOS)
    p.add_argument("--size", type=int, help="synthlong: side in pixels")
    p.add_argument("--frames", type=int, help="synthlong: only the first frames of each video")
    p.add_argument("--auto", action="store_true", help="sav-raw: automatic masklets too")


def open_from(args: argparse.Namespace):
    options: dict = {}
    if args.videos:
        options["videos"] = pngs.names_in(args.videos)
    for name, only in (("size", "synthlong"), ("frames", "synthlong"), ("auto", "sav-raw")):
        if getattr(args, name):
            if args.dataset != only:
                raise ConfigError(f"--{name} is an option of {only}, not of {args.dataset}; leave it out")
            options[name] = getattr(args, name)
    return datasets.open_dataset(args.dataset, args.root, **options)


def _add_check(commands) -> None:
    p = commands.add_parser("check", help="find the faults of a data set's layout")
    add_dataset_options(p)
    p.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    dataset = open_from(args)
    faults = dataset.check()
    for fault in faults:
        print(fault)
    if not faults:
        print(f"{dataset.name}: {len(dataset.names())} videos, no fault found")
    return EXIT_BAD_INPUT if faults else 0


def _add_run(commands) -> None:
    p = commands.add_parser("run", help="track a data set's objects and write the official PNGs")
    add_dataset_options(p)
    p.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the run's folder; run again to go on with it"
    )
    p.add_argument("--model", help="short name, sam2 config name, or a YAML; default: nano")
    p.add_argument("--checkpoint", metavar="FILE", help="weights, if the model's name does not say")
    p.add_argument("--config", type=Path, metavar="YAML", help="sam2long settings, and overrides of the model")
    p.add_argument("--baseline", choices=("sam2",), help="run plain SAM 2 too, into DIR-sam2")
    p.add_argument("--tracker", default="sam2long", help="sam2long, sam2, or module:function of your own")
    p.add_argument("--prompt", choices=prompting.PROMPTS, default="mask", help="made from the given first masks")
    p.add_argument("--device", help="cuda, cuda:1, cpu, ...; default: the best there is")
    p.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"))
    p.add_argument("--seed", type=int)
    _add_engine(p)
    p.add_argument("--score", action="store_true", help="score afterwards, where ground truth is at hand")
    p.set_defaults(run=_run)


def _spec_from(args: argparse.Namespace, **more: object) -> trackers.TrackerSpec:
    """What the flags that `run` and `interact` share say of the tracker."""
    from eval import settings

    return settings.tracker_spec(
        method=args.tracker,
        model=args.model,
        checkpoint=args.checkpoint,
        config=args.config,
        device=args.device,
        **more,
    )


def _run(args: argparse.Namespace) -> int:
    from eval import runner, settings

    dataset = open_from(args)
    spec = _spec_from(args, dtype=args.dtype, seed=args.seed, prompt=args.prompt)
    outs = {args.out: spec}
    if args.baseline:
        outs[args.out.with_name(f"{args.out.name}-{args.baseline}")] = settings.baseline_of(spec)
    failed = False
    for out, this in outs.items():
        result = runner.run(dataset, this, out, engine=args.engine, address=args.address, workers=args.workers)
        failed |= bool(result.failed)
        print(
            f"{out}: {len(result.done)} videos done, {len(result.skipped)} were done before, "
            f"{len(result.failed)} failed"
        )
        if args.score and not result.failed:
            _score_run(dataset, out)
    if args.baseline and args.score and not failed:
        from eval import report

        print(report.difference_line(*outs, dataset.protocol))
    return EXIT_SOME_VIDEOS_FAILED if failed else 0


def _score_run(dataset, out: Path) -> None:
    from eval import one_video, runner, score

    gt = runner.gt_of(dataset, out)
    if gt is None:
        print(f"{out}: no ground truth of {dataset.name} is here; pack the predictions for its server")
        return
    scores = score.evaluate(dataset.protocol, gt, one_video.predictions_folder(out), **score.restrict(dataset, gt))
    score.write(scores, out / "scores" / dataset.protocol)
    print(f"{out}:")
    print("\n".join(f"  {k}  {v}" for k, v in scores.reported()["global"].items()))
    for line in score.presence_lines(scores):
        print(f"  {line}")


def _add_pack(commands) -> None:
    p = commands.add_parser("pack", help="check predictions and write the zip for a benchmark's server")
    p.add_argument("--dataset", required=True, choices=pack_names())
    p.add_argument("--root", type=Path, required=True, metavar="DIR", help="the data set")
    p.add_argument("--pred", type=Path, required=True, metavar="DIR", help="a run's folder, or its predictions")
    p.add_argument("--out", type=Path, required=True, metavar="ZIP")
    p.set_defaults(run=_pack)


def pack_names() -> tuple[str, ...]:
    from eval import pack

    return pack.NAMES


def _pack(args: argparse.Namespace) -> int:
    from eval import pack

    pred = args.pred / "predictions" if (args.pred / "manifest.json").exists() else args.pred
    count = pack.pack(args.dataset, args.root, pred, args.out)
    print(f"{args.out}: {count} PNGs, {args.out.stat().st_size / 2**20:.1f} MiB")
    return 0


def _add_report(commands) -> None:
    p = commands.add_parser("report", help="markdown and figures from scored runs, beside the published numbers")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument("--protocol", choices=protocols.NAMES, help="default: the one that all runs have been scored with")
    p.add_argument(
        "--attributes", type=Path, metavar="CSV", help="columns video, attribute: break scores down by attribute"
    )
    p.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from eval import report

    path = report.write(args.runs, args.out, protocol=args.protocol, attributes=args.attributes)
    print(path)
    return 0


def _add_interact(commands) -> None:
    p = commands.add_parser("interact", help="how many corrections a video takes, by the rule that says where to look")
    add_dataset_options(p)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="run again to go on, or to add rules")
    p.add_argument("--rules", metavar="A,B", help="default: all; see eval/interact/rules.py")
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="corrections of each object (default: 5)")
    p.add_argument("--start", choices=prompting.PROMPTS, default="box", help="the first prompt (default: box)")
    p.add_argument(
        "--correction",
        choices=prompting.CORRECTIONS,
        default="mask",
        help="; ".join(f"{kind}: {means}" for kind, means in prompting.CORRECTIONS.items()) + " (default: mask)",
    )
    p.add_argument("--tracker", choices=("sam2long", "sam2"), default="sam2long")
    p.add_argument("--model", help="short name, sam2 config name, or a YAML; default: nano")
    p.add_argument("--checkpoint", metavar="FILE", help="weights, if the model's name does not say")
    p.add_argument("--config", type=Path, metavar="YAML", help="sam2long settings, and overrides of the model")
    p.add_argument("--device", help="cuda, cuda:1, cpu, ...; default: the best there is")
    p.add_argument("--seed", type=int, default=0, help="of the random frames")
    p.add_argument("--against", type=Path, metavar="DIR", help="another run: compare the work until a goal")
    p.set_defaults(run=_interact)


def _interact(args: argparse.Namespace) -> int:
    from eval.interact import measure, tables
    from eval.interact.rules import RULES

    rules = tuple(RULES) if args.rules is None else tuple(name.strip() for name in args.rules.split(","))
    if unknown := [name for name in rules if name not in RULES]:
        raise ConfigError(f"no rule is called {pngs.some(unknown)}; the rules are {', '.join(RULES)}")
    if args.rounds < 1:
        raise ConfigError(f"--rounds is {args.rounds}; expected 1 or more")
    spec = _spec_from(args)
    plan = measure.Plan(rules=rules, rounds=args.rounds, start=args.start, correction=args.correction, seed=args.seed)
    measure.measure(open_from(args), spec, plan, args.out)
    print(tables.write(args.out, args.against), end="")
    return 0


def _add_reproduce(commands) -> None:
    from eval import paper

    p = commands.add_parser("reproduce", help="the paper's tables, as far as data and weights are at hand")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder in which the data sets lie")
    p.add_argument("--out", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="run again to go on with it")
    p.add_argument("--models", nargs="+", default=list(paper.MODELS), metavar="NAME", help="default: SAM 2.1's four")
    p.add_argument("--datasets", nargs="+", choices=paper.NAMES, default=list(paper.NAMES), metavar="NAME",
                   help=f"of {', '.join(paper.NAMES)}; default: all")  # fmt: skip
    p.add_argument("--device", help="cuda, cuda:1, cpu, ...; default: the best there is")
    p.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"))
    _add_engine(p)
    p.set_defaults(run=_reproduce)


def _reproduce(args: argparse.Namespace) -> int:
    from eval import reproduce, settings

    well = reproduce.reproduce(
        args.data,
        args.out,
        models=args.models,
        wanted=args.datasets,
        spec=settings.tracker_spec(device=args.device, dtype=args.dtype),
        engine=args.engine,
        address=args.address,
        workers=args.workers,
    )
    return 0 if well else EXIT_SOME_VIDEOS_FAILED


def _add_engine(p: argparse.ArgumentParser) -> None:
    p.add_argument("--engine", choices=("local", "ray"), default="local")
    p.add_argument("--address", help="ray: the cluster, e.g. auto")
    p.add_argument("--workers", type=int, help="processes; default: one, with ray one per GPU")


def _add_generate(commands) -> None:
    from sam2long.synthetic import SCENARIOS

    p = commands.add_parser(
        "generate", help="write generated videos with exact masks in a benchmark's layout, or davis-long from DAVIS"
    )
    p.add_argument("--layout", required=True, choices=[n for n in datasets.NAMES if n != "synthlong"])
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder: the data set's root")
    p.add_argument("--root", type=Path, metavar="DAVIS", help="davis-long: the DAVIS 2016 that it is made of")
    names = ", ".join(SCENARIOS)
    p.add_argument("--scenarios", default="easy,reappear", metavar="A,B", help=f"of {names} (default: easy,reappear)")
    p.add_argument("--videos", type=int, default=1, metavar="N", help="videos of each scenario (default: 1)")
    p.add_argument("--frames", type=int, default=60, metavar="N", help="images per video (default: 60)")
    p.add_argument("--size", type=int, default=128, metavar="N", help="side in pixels, 32 to 4096 (default: 128)")
    p.add_argument("--objects", type=int, metavar="N", help="tracked objects, 1 to 12 (default: the scenario's)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of each scenario's first video (default: 0)")
    p.set_defaults(run=_generate)


def _generate_davis_long(args: argparse.Namespace) -> int:
    from eval import davis_long

    if args.root is None:
        raise ConfigError("davis-long is made of DAVIS 2016 val; say where it lies with --root DAVIS")
    planned = davis_long.write(args.root, args.out)
    frames = sum(segment.count for segments in planned.values() for segment in segments)
    print(f"{args.out}: {len(planned)} videos, {frames} frames; use it with")
    print(f"python -m eval run --dataset davis-long --root {shlex.quote(str(args.out))} --out DIR --score")
    return 0


def _generate(args: argparse.Namespace) -> int:
    from eval import layouts
    from sam2long.synthetic import generate

    if args.layout == "davis-long":
        return _generate_davis_long(args)
    if args.root is not None:
        raise ConfigError(f"--root is an option of the layout davis-long, not of {args.layout}; leave it out")
    if args.videos < 1:
        raise ConfigError(f"--videos is {args.videos}; expected 1 or more")
    scenarios = [name.strip() for name in args.scenarios.split(",")]
    if len(set(scenarios)) < len(scenarios):
        raise ConfigError(f"--scenarios is {args.scenarios}; name each one once, and give --videos N for more of it")
    clips = [
        layouts.Clip.of(generate(scenario, args.seed + k, args.frames, args.size, args.objects))
        for scenario in scenarios
        for k in range(args.videos)
    ]
    layouts.write(args.layout, args.out, clips)
    print(f"{args.out}: {', '.join(clip.name for clip in clips)}; look over them with")
    print(f"python -m eval check --dataset {args.layout} --root {shlex.quote(str(args.out))}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m eval", description="Benchmark runs with official-exact scores.")
    commands = top.add_subparsers(required=True, metavar="command")
    for add in (_add_run, _add_score, _add_check, _add_pack, _add_report, _add_interact, _add_reproduce, _add_generate):
        add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except Sam2LongError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT

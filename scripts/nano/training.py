"""The training run: one process per rank, resumable, with a log and scores on the way."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nano.clips import batches, normalised, prepare, sources
from nano.curriculum import SIZE, Stage
from nano.forward import forward_clip
from nano.network import MODELS, Tracker, build, export, quick_on_cpu, read_weights, set_size
from nano.optimisation import average_gradients, learning_rate, optimisers
from nano.photos import Photo, read_photos, split
from nano.scoring import COMPOSED, held_out_clips, prompt_photos, summary, track_clips
from nano.stills import LEARNS, forward_stills

SAVE_SECONDS = 120
# The best weights are those with the highest mean of these, all on photographs that are kept out.
JUDGED = ("box", "box_small", "click_best", "click_top", "five_clicks", "cutouts_J", "whole_J", "occlusion_J")


def train(args: argparse.Namespace) -> None:
    split_photos(args)  # what will not do is said before anything begins
    Path(args.out).mkdir(parents=True, exist_ok=True)
    if args.ranks == 1:
        train_rank(0, args)
        return
    meeting = Path(tempfile.mkdtemp()) / "meeting"
    torch.multiprocessing.spawn(train_rank, args=(args, str(meeting)), nprocs=args.ranks)


def train_rank(rank: int, args: argparse.Namespace, meeting: str = "") -> None:
    torch.set_num_threads(args.threads)
    if args.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.ranks)
    Trainer(rank, args).run()


def split_photos(args: argparse.Namespace) -> tuple[list[Photo], list[Photo]]:
    return split(read_photos(args.photos), args.held_out) if args.photos else ([], [])


class Trainer:
    """What one rank holds: model, optimisers, averaged weights, clock. Rank 0 also logs, saves and scores."""

    def __init__(self, rank: int, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.rank, self.args, self.out = rank, args, Path(args.out)
        self.photos, self.kept_out = split_photos(args)
        self.model = build(MODELS / "nano.yaml").to(args.device).train()
        if args.init:
            self.model.load_state_dict(read_weights(Path(args.init)))
        elif not (self.out / "last.pt").exists():
            from nano import imagenet

            self.model.image_encoder.trunk.load_state_dict(imagenet.trunk().state_dict())
        self.twin = build(MODELS / "nano.yaml").to(args.device)  # carries the averaged weights when they are scored
        set_size(self.twin, SIZE)
        if torch.device(args.device).type == "cpu":
            quick_on_cpu(self.model.image_encoder.trunk)
        self.tracker = Tracker(self.model)
        self.optimisers = optimisers(self.model, args.lr)
        self.params = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.params]
        self.step, self.spent, self.begin = 0, 0.0, args.begin
        self.norm = self.lr = self.best = 0.0
        self.resume()
        self.position = mp.Value("d", self.in_curriculum())

    @property
    def share(self) -> float:
        """Of the minutes, spent."""
        return min(self.spent / (60 * self.args.minutes), 1.0)

    def in_curriculum(self) -> float:
        return self.begin + (1 - self.begin) * self.share

    def run(self) -> None:
        args = self.args
        seed = (args.seed * 1_000_003 + self.step) * 64 + self.rank
        found = sources(self.photos)
        source = batches(seed, args.wide / args.ranks, args.producers, self.position, found)
        rng = random.Random(args.seed + self.step + 1000 * self.rank)
        torch.manual_seed(args.seed + self.step + 1000 * self.rank)
        log = Log(self.out / "log.jsonl", args.log_every) if self.rank == 0 else None
        clock = saved_at = scored_at = time.time()
        parent = os.getppid()
        while self.share < 1.0 and (args.ranks == 1 or os.getppid() == parent):  # or ranks outlive a killed run
            stage, *shots = next(source)
            self.choose(stage)
            with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16):
                part = self.learn(stage, shots, rng)
            now = time.time()
            self.tick(now - clock)
            clock = now
            if log is None:
                continue
            log.add(part | {"norm": self.norm}, self.stamp() | {"lr": round(self.lr, 6), "frames": stage.frames,
                                                                "size": stage.size})  # fmt: skip
            over = self.share >= 1.0
            if over or now - saved_at > SAVE_SECONDS:
                saved_at = now
                self.save()
            if over or now - scored_at > 60 * args.score_minutes:
                scored_at = now
                log.write(self.score())

    def choose(self, stage: Stage) -> None:
        """The size of its frames, and what learns from it."""
        if stage.size != self.model.image_size:
            set_size(self.model, stage.size)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name.startswith(LEARNS) or not stage.stills)
        self.model.image_encoder.trunk.requires_grad_(stage.trunk)

    def learn(self, stage: Stage, shots: list[np.ndarray], rng: random.Random) -> dict[str, float]:
        device = self.args.device
        if not stage.stills:
            return forward_clip(self.tracker, *prepare(*shots, device), stage, rng, self.backward)
        images, masks, of = shots
        masks, of = (torch.from_numpy(x).to(device) for x in (masks, of))
        return forward_stills(self.tracker, normalised(images, device), masks, of, stage, rng, self.backward)

    def backward(self, loss: Tensor) -> None:
        """One step of the optimisers; a step whose gradient is not finite is left out."""
        for p in self.params:
            p.grad = None
        loss.backward()
        if self.args.ranks > 1:
            average_gradients(self.model, self.args.ranks)
        self.norm = float(nn.utils.clip_grad_norm_(self.params, self.args.clip))
        if not math.isfinite(self.norm):
            return
        self.lr = learning_rate(self.share, self.step, self.args.lr)
        for opt in self.optimisers:
            for group in opt.param_groups:
                group["lr"] = self.lr * group["boost"]
            opt.step()
        self.step += 1
        share = 1 - min(self.args.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.params], share)
        torch.clear_autocast_cache()  # or the clip's next chunk would run on this one's weights

    def tick(self, seconds: float) -> None:
        self.spent += seconds
        if self.args.ranks > 1:  # one clock for all, or they would part at a change of stage
            shared = torch.tensor([self.spent], dtype=torch.float64)
            dist.broadcast(shared, 0)
            self.spent = float(shared)
        self.position.value = self.in_curriculum()

    def stamp(self) -> dict:
        return {"step": self.step, "minutes": round(self.spent / 60, 2)}

    # ---- on disk ---------------------------------------------------------------------------------------------

    def resume(self) -> None:
        last = self.out / "last.pt"
        if not last.exists():
            return
        saved = torch.load(last, map_location=self.args.device)
        self.model.load_state_dict(saved["model"])
        if not self.args.fresh_optimiser:
            for opt, state in zip(self.optimisers, saved["opts"], strict=True):
                opt.load_state_dict(state)
        self.ema = [e.clone() for e in saved["ema"]]
        self.step, self.spent = saved["step"], saved["spent"]
        self.begin, self.best = saved["begin"], saved["best"]
        instead = f", not from {self.args.init}" if self.args.init else ""
        if self.rank == 0:
            print(f"resumed {last} at step {self.step}, {self.spent / 60:.1f} min{instead}", flush=True)

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "opts": [o.state_dict() for o in self.optimisers], "ema": self.ema,
                 "step": self.step, "spent": self.spent, "best": self.best, "begin": self.begin}  # fmt: skip
        torch.save(state, self.out / "last.tmp")
        (self.out / "last.tmp").replace(self.out / "last.pt")

    def score(self) -> dict:
        """Export the averaged weights, and what they reach on a few held-out clips."""
        self.twin.load_state_dict(self.model.state_dict())
        for p, e in zip(self.twin.parameters(), self.ema, strict=True):
            p.data.copy_(e)
        export(self.twin, self.out / "ema.safetensors")
        row = self.stamp()
        if self.kept_out:
            row |= {name: round(value, 3) for name, value in prompt_photos(self.twin, self.kept_out).items()}
        for name in ("occlusion", *(COMPOSED if self.kept_out else ())):
            found = summary(track_clips(self.twin, held_out_clips(name, 8, 24, self.kept_out)))
            row.update({f"{name}_{k}": round(found[k], 3) for k in ("J", "J_last_quarter", "presence_auc")})
        row["score"] = round(float(np.mean([row[name] for name in JUDGED if name in row])), 4)
        if row["score"] > self.best:
            self.best = row["score"]
            shutil.copy(self.out / "ema.safetensors", self.out / "best.safetensors")
        return row


class Log:
    """JSON lines, on disk and on the screen; every so many batches the mean of each figure over those that have it."""

    def __init__(self, path: Path, every: int) -> None:
        self.file, self.every = path.open("a"), every
        self.values: dict[str, list[float]] = {}
        self.count = 0

    def add(self, figures: dict[str, float], stamp: dict) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)
        self.count += 1
        if self.count == self.every:
            self.write({name: round(float(np.mean(values)), 4) for name, values in self.values.items()} | stamp)
            self.values, self.count = {}, 0

    def write(self, row: dict) -> None:
        print(json.dumps(row), flush=True)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

"""Training clips: from several sources, batched, and as tensors."""

from __future__ import annotations

import itertools
import multiprocessing as mp
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nano import curriculum
from nano.composed import Cutouts, Whole
from nano.curriculum import OBJECTS, Stage
from nano.photos import Photo
from nano.stills import Stills
from sam2long.synthetic import SCENARIOS, generate

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Clips(Protocol):
    """A source of clips. The same `rng` state gives the same clip."""

    def clip(self, rng: random.Random, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        """images [T, size, size, 3] uint8 RGB; ids [T, size, size] uint8, 1..OBJECTS, all in view on frame 0."""


class Generated:
    """Scenes of `sam2long.synthetic`, split `train`: long absences, twins, crowds, with exact masks."""

    def clip(self, rng: random.Random, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        name = rng.choices(list(stage.scenarios), list(stage.scenarios.values()))[0]
        stride = rng.choice(stage.strides)
        span = (stage.frames - 1) * stride
        knobs = SCENARIOS[name]
        knobs = replace(knobs, size=tuple(n * stage.zoom // 100 for n in knobs.size))
        length = max(240 if name == "long" else 120, span + 40)
        scene = generate(name, rng.randrange(1 << 40), length, stage.size, OBJECTS, split="train", knobs=knobs)
        start = 0
        for _ in range(6):
            t = rng.randrange(scene.num_frames - span)
            counts = np.bincount(scene.ids(t).reshape(-1), minlength=OBJECTS + 1)[1:]
            if counts.min() > stage.size**2 // 80:
                start = t
                break
        frames = [scene.frame(start + k * stride) for k in range(stage.frames)]
        mirror = np.s_[:, ::-1] if rng.random() < 0.5 else np.s_[:, :]
        return np.stack([f.image[mirror] for f in frames]), np.stack([f.ids[mirror] for f in frames])


def sources(photos: Sequence[Photo] = ()) -> dict[str, Clips | Stills]:
    """What lessons can be made of; without photographs only the generated scenes."""
    found: dict[str, Clips | Stills] = {"generated": Generated()}
    if photos:
        found |= {"cutouts": Cutouts(photos), "whole": Whole(photos), "stills": Stills(photos)}
    return found


def make_batch(rng: random.Random, stage: Stage, clips: int, found: dict) -> tuple[np.ndarray, ...]:
    """What a stage learns from.

    Clips: images [clips, T, size, size, 3] uint8, ids [clips, T, size, size] uint8. Stills: see `Stills.batch`.
    """
    if stage.stills:
        return found["stills"].batch(rng, stage, clips)
    mix = {name: weight for name, weight in stage.mix.items() if name in found} or {"generated": 1}
    names = rng.choices(list(mix), list(mix.values()), k=clips)
    pairs = [found[name].clip(rng, stage) for name in names]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def producer(queue, seed: int, position, share: float, found: dict) -> None:
    """Runs in its own process (for a GPU) and puts finished batches into `queue`."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    for turn in itertools.count():
        stage = curriculum.stage_at(position.value, turn, "stills" in found)
        queue.put((stage, *make_batch(rng, stage, clips_of(stage, share), found)))


def clips_of(stage: Stage, share: float) -> int:
    return max(int(stage.clips * share), 1)


def batches(seed: int, share: float, producers: int, position, found: dict):
    """Endless batches: made here (CPU training, where every core is busy anyway) or by `producers` processes.

    `share` of the curriculum's clips per step: below 1 for one of several ranks, above 1 on a GPU.
    """
    if not producers:
        rng = random.Random(seed)
        for turn in itertools.count():  # the same on all ranks
            stage = curriculum.stage_at(position.value, turn, "stills" in found)
            yield stage, *make_batch(rng, stage, clips_of(stage, share), found)
    queue: mp.Queue = mp.Queue(2 * producers)
    for k in range(producers):
        mp.Process(target=producer, args=(queue, seed * 64 + k, position, share, found), daemon=True).start()
    while True:
        yield queue.get()


def prepare(images: np.ndarray, ids: np.ndarray, device) -> tuple[Tensor, Tensor]:
    """Normalised images [B, T, 3, H, W], and masks [B * OBJECTS, T, H, W] with one clip's objects side by side."""
    x = normalised(images, device)
    i = torch.from_numpy(ids).to(device)
    return x, torch.stack([i == k for k in range(1, OBJECTS + 1)], 1).flatten(0, 1)


def normalised(images: np.ndarray, device) -> Tensor:
    """[..., H, W, 3] uint8 to [..., 3, H, W] as the network takes it."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float().div_(255)
    return ((x - MEAN.to(device)) / STD.to(device)).movedim(-1, -3).contiguous()

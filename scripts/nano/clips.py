"""Training clips: generated, batched, and as tensors."""

from __future__ import annotations

import itertools
import multiprocessing as mp
import random
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nano import curriculum
from nano.curriculum import OBJECTS, Stage
from sam2long.synthetic import SCENARIOS, generate

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def make_clip(rng: random.Random, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """One clip with two objects that are both in view on its first frame: [T, H, W, 3] uint8 and [T, H, W] ids."""
    name = rng.choices(list(stage.mix), list(stage.mix.values()))[0]
    stride = rng.choice(stage.strides)
    span = (stage.frames - 1) * stride
    size = stage.size
    knobs = SCENARIOS["easy" if name == "first" else name]
    knobs = replace(knobs, size=tuple(n * stage.zoom // 100 for n in knobs.size))
    if name == "first":
        larger = tuple(n * 5 // 4 for n in knobs.size)
        knobs = replace(knobs, size=larger, strangers=(0, 1), camera=150, clutter=(0, 1), blur=0)
        scene = generate("easy", rng.randrange(1 << 40), 40, size, OBJECTS, split="train", knobs=knobs)
    else:
        length = max(240 if name == "long" else 120, span + 40)
        scene = generate(name, rng.randrange(1 << 40), length, size, OBJECTS, split="train", knobs=knobs)
    start = 0
    for _ in range(6):
        t = rng.randrange(scene.num_frames - span)
        counts = np.bincount(scene.ids(t).reshape(-1), minlength=OBJECTS + 1)[1:]
        if counts.min() > size * size // 80:
            start = t
            break
    frames = [scene.frame(start + k * stride) for k in range(stage.frames)]
    if rng.random() < 0.5:
        frames_rgb = np.stack([f.image[:, ::-1] for f in frames])
        return frames_rgb, np.stack([f.ids[:, ::-1] for f in frames])
    return np.stack([f.image for f in frames]), np.stack([f.ids for f in frames])


def make_batch(rng: random.Random, stage: Stage, clips: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [make_clip(rng, stage) for _ in range(clips)]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def producer(queue, seed: int, position, clips_share: int) -> None:
    """Runs in its own process (for a GPU) and puts finished batches into `queue`."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    for turn in itertools.count():
        stage = curriculum.stage_at(position.value, turn)
        queue.put((stage, *make_batch(rng, stage, max(stage.clips // clips_share, 1))))


def batches(seed: int, ranks: int, producers: int, position):
    """Endless batches: made here (CPU training, where every core is busy anyway) or by `producers` processes."""
    if not producers:
        rng = random.Random(seed)
        for turn in itertools.count():  # the same on all ranks
            stage = curriculum.stage_at(position.value, turn)
            yield stage, *make_batch(rng, stage, max(stage.clips // ranks, 1))
    queue: mp.Queue = mp.Queue(2 * producers)
    for k in range(producers):
        mp.Process(target=producer, args=(queue, seed * 64 + k, position, ranks), daemon=True).start()
    while True:
        yield queue.get()


def prepare(images: np.ndarray, ids: np.ndarray, device) -> tuple[Tensor, Tensor]:
    """Normalised images [B, T, 3, H, W], and masks [B * OBJECTS, T, H, W] with one clip's objects side by side."""
    x = torch.from_numpy(images).to(device).float().div_(255)
    x = ((x - MEAN.to(device)) / STD.to(device)).permute(0, 1, 4, 2, 3).contiguous()
    i = torch.from_numpy(ids).to(device)
    return x, torch.stack([i == k for k in range(1, OBJECTS + 1)], 1).flatten(0, 1)

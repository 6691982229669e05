"""Models and videos made up for tests: seconds to build, no downloads, and objects that are present.

With plain random weights the object logit is a constant and a negative one turns every mask into the same
constant: comparing masks then proves nothing. `lively` spreads the heads so that IoUs differ, frames are
uncertain and pathways part; the tests that need it check that it does.
"""

from __future__ import annotations

import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from sam2long import SAM2LongVideoPredictor, build_sam2long_video_predictor
from sam2long.network.protocol import Remembered
from sam2long.tracking.session import Session
from sam2long.video import VideoWriter

TINY = Path(__file__).parent / "models" / "tiny.yaml"
SIDE = 64  # of the tiny model's input


def lively(model: torch.nn.Module, presence: float = 2.0) -> torch.nn.Module:
    """Spread a random model's heads. presence: added to the object logit; 2.0 gives a mix, 20 always there."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(1.6)
        decoder = model.sam_mask_decoder
        decoder.iou_prediction_head.layers[-1].weight.mul_(20)
        if decoder.pred_obj_scores:
            decoder.pred_obj_score_head.layers[-1].weight.mul_(40)
            decoder.pred_obj_score_head.layers[-1].bias.fill_(presence)
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(3)
    return model


def tiny_predictor(seed: int = 1, presence: float = 2.0, overrides: tuple[str, ...] = (), **options):
    """Our predictor on a very small lively model, float32 on the CPU."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the weights are random": they are meant to be
        predictor = build_sam2long_video_predictor(
            TINY, device="cpu", apply_postprocessing=False, hydra_overrides_extra=list(overrides), **options
        )
    return lively(predictor, presence)


def tiny_flags(folder: Path, presence: float = 2.0) -> tuple[str, ...]:
    """The tiny model, for a command line; its weights part the hypotheses. presence: as for `lively`."""
    path = folder / "tiny.pt"
    torch.save({"model": tiny_predictor(presence=presence).state_dict()}, path)
    return "--model", str(TINY), "--checkpoint", str(path), "--device", "cpu"


def reconfigured(predictor: SAM2LongVideoPredictor, config) -> SAM2LongVideoPredictor:
    """The same weights with other settings."""
    return SAM2LongVideoPredictor.from_sam2(predictor, config)


def jpeg_folder(folder: Path, video: np.ndarray, size: tuple[int, int] | None = None) -> Path:
    """A video as sam2 reads it. size: width, height."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(video):
        picture = Image.fromarray(image)
        picture = picture.resize(size, Image.Resampling.NEAREST) if size else picture
        picture.save(folder / f"{i:05d}.jpg", quality=95)
    return folder


def noise_video(num_frames: int = 30, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Blocks of random colours, new ones on each frame: [T, side, side, 3] uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (num_frames, 8, 8, 3), dtype=np.uint8)
    return blocks.repeat(side // 8, axis=1).repeat(side // 8, axis=2)


def noise_clip(path: Path, num_frames: int, fps: int) -> str:
    """`noise_video` as a file."""
    with VideoWriter(path, fps, SIDE, SIDE) as out:
        for image in noise_video(num_frames):
            out.write(image)
    return str(path)


def box_mask(top: int, left: int, height: int, width: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top : top + height, left : left + width] = True
    return mask


MASK = box_mask(10, 20, 30, 30)
OTHER = box_mask(2, 2, 20, 24)
THIRD = box_mask(34, 4, 26, 18)


def run(predictor, video, prompts=((0, 1, MASK),), **options) -> dict[int, torch.Tensor]:
    """Prompt with masks, propagate, and collect the logits [N, 1, H, W] of each frame."""
    state = predictor.init_state(video)
    for frame, obj_id, mask in prompts:
        predictor.add_new_mask(state, frame, obj_id, mask)
    return collect(predictor, state, **options)


def collect(predictor, state, **options) -> dict[int, torch.Tensor]:
    return {frame: masks.clone() for frame, _, masks in predictor.propagate_in_video(state, **options)}


def same(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> bool:
    """The same frames in the same order, the same bits."""
    return list(a) == list(b) and all(torch.equal(a[frame], b[frame]) for frame in a)


def interrupt_every(monkeypatch, steps: int) -> None:
    """Ctrl-C before every so many steps of whatever is tracked in this process."""
    taken, step = [], Session._step

    def counted(self, *args):
        taken.append(None)
        if len(taken) % steps == 0:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(Session, "_step", counted)


class ScriptedModel:
    """Stands in for `Batched` under the tracker. A pathway is a number, kept in the pointer of its last frame:
    each child has another one. `say(frame, pathway)` gives the verdict; a mask is the number of its pathway."""

    children = 10  # more than candidates

    def __init__(self, say):
        self.say = say

    def propose(self, frame, readings, num_pointers, while_waiting=None, outgoing=None, with_boxes=False):
        self.pathways = [int(reading.spatial[-1].memory.object_ptr) for reading in readings]
        verdicts = [self.say(frame, pathway) for pathway in self.pathways]
        return SimpleNamespace(verdicts=verdicts, kept_tokens=[None] * len(readings), boxes=[()] * len(readings))

    def remember(self, frame, proposals, kept):
        numbers = [torch.tensor([[self.pathways[row] * self.children + k + 1]]) for row, k in kept]
        return [Remembered(mask=number, mask_features=number, object_ptr=number) for number in numbers]

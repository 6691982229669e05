"""`sam2long demo`: SAM 2 and SAM2Long side by side on a generated video, with nothing to download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sam2long._version import __version__
from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from sam2long.predictor import SAM2LongVideoPredictor

SEED = 2024  # written down before the first run, and not picked for its result
SIZE = 128
ZOOM = 3  # the generated frames are small
FPS = 25
LABELS = {1: "", 2: ""}
DEMO, TIMELINE, VIDEO, RESULTS = "demo.mp4", "timeline.png", "video.mp4", "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Generate a long video with look-alikes, occlusions and returns, and track it with SAM 2 and with SAM2Long.

    Needs no download: both run on the small model that comes with the package. Takes one to three minutes
    on two CPU cores and leaves demo.mp4, timeline.png, video.mp4 and results.json in the output folder.
    """

    out: Annotated[Path, tyro.conf.arg(help="folder for the results")] = Path("runs/demo")
    frames: Annotated[int, tyro.conf.arg(help="length of the video")] = 400
    seed: Annotated[int, tyro.conf.arg(help="another seed makes another video")] = SEED
    device: Annotated[str | None, tyro.conf.arg(help="default: the best there is")] = None

    def run(self) -> int:
        from sam2long import SAM2LongVideoPredictor, build_sam2long_video_predictor, heldout
        from sam2long.export.atomic import write_json
        from sam2long.export.timeline import write_timeline
        from sam2long.weights import CHECKPOINTS

        if self.frames < 3:
            raise ConfigError(
                f"--frames is {self.frames}; expected 3 or more: the first is the prompt, and the last is not scored"
            )
        require_own(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        predictor = build_sam2long_video_predictor("nano", device=self.device, apply_postprocessing=False)
        images, truth = generated(self.seed, self.frames)
        print(f"a generated video of {self.frames} frames, {len(LABELS)} objects, seed {self.seed}")
        results: dict[str, Any] = {}
        masks = {}
        for name, config in (("SAM 2", Sam2LongConfig.sam2()), ("SAM2Long", Sam2LongConfig())):
            tracker = SAM2LongVideoPredictor.from_sam2(predictor, config)
            begin = time.perf_counter()
            with single_thread():
                masks[name], report = track(tracker, images, truth)
            seconds = time.perf_counter() - begin
            j, f = mean_scores(masks[name], truth)
            results[name] = {
                "J&F": round((j + f) / 2, 4),
                "J": round(j, 4),
                "F": round(f, 4),
                "frames_per_second": round(self.frames / seconds, 1),
                "uncertain_frames": int((report.status == "uncertain").sum()),
                "most_pathways": int(report.pathways.max()),
                "config": config.to_dict(),
            }
            speed = results[name]["frames_per_second"]
            print(f"{name:>9}: J&F {50 * (j + f):.1f}, J {100 * j:.1f}, F {100 * f:.1f}; {speed} frames per second")
        write_timeline(report, self.out / TIMELINE, labels=LABELS)
        write_videos(self.out, images, truth, masks)
        write_json(
            self.out / RESULTS,
            {"sam2long": __version__, "weights": "nano", "seed": self.seed, "frames": self.frames} | results,
        )
        print("\none video says little; " + "\n".join(heldout.lines(CHECKPOINTS["nano"].fetch())))
        print(f"\nlook at {self.out / DEMO} (truth, SAM 2, SAM2Long) and {self.out / TIMELINE}")
        print("the small model knows little of real videos; for your own take one of Meta's checkpoints, or first try:")
        print(f"sam2long track {self.out / VIDEO} --point 60,60 --out runs/first --overwrite")
        return 0


def require_own(out: Path) -> None:
    """Refuse a folder where files that no demo wrote would be replaced."""
    if not (out / RESULTS).exists():
        foreign = [name for name in (DEMO, TIMELINE, VIDEO) if (out / name).exists()]
        if foreign:
            raise DataError(f"{out} holds {', '.join(foreign)} that no demo wrote; choose another --out")


@contextmanager
def single_thread() -> Iterator[None]:
    """The small model's operations are too small to split, and threads that wait for a busy core cost far more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generated(seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [T, S, S, 3] uint8 and true ids [T, S, S] uint8 of a held-out scene."""
    import numpy as np

    from sam2long.synthetic import generate

    scene = generate("long", seed=seed, num_frames=frames, size=SIZE, num_objects=len(LABELS))
    made = [(frame.image, frame.ids) for frame in scene]
    return np.stack([image for image, _ in made]), np.stack([ids for _, ids in made])


def track(predictor: SAM2LongVideoPredictor, images: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Any]:
    """Prompt every object with its true mask on frame 0; returns masks [T, N, S, S] bool and the track report."""
    import numpy as np
    from tqdm import tqdm

    state = predictor.init_state(images)
    for obj_id in LABELS:
        predictor.add_new_mask(state, 0, obj_id, truth[0] == obj_id)
    masks = np.zeros((len(images), len(LABELS), *truth.shape[1:]), bool)
    for frame, _, logits in tqdm(
        predictor.propagate_in_video(state), total=len(images), unit="frame", leave=False, disable=None
    ):
        masks[frame] = (logits[:, 0] > 0).cpu().numpy()
    return masks, predictor.track_report(state)


def mean_scores(masks: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """J and F, means over objects and frames; as in the benchmarks without the prompted frame and the last."""
    import numpy as np

    from sam2long.measures import j_and_f

    scores = [
        j_and_f(ids == obj_id, mask)
        for index, obj_id in enumerate(LABELS)
        for mask, ids in zip(masks[1:-1, index], truth[1:-1], strict=True)
    ]
    j, f = np.mean(scores, axis=0)
    return float(j), float(f)


def write_videos(out: Path, images: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    """video.mp4, what was tracked; and demo.mp4, truth and results side by side."""
    from sam2long.video import VideoWriter

    side = SIZE * ZOOM
    with VideoWriter(out / VIDEO, FPS, side, side) as plain:
        for image in images:
            plain.write(enlarged(image))
    with VideoWriter(out / DEMO, FPS, 3 * side, side) as demo:
        for panels in panel_rows(images, truth, masks):
            demo.write(panels)


def panel_rows(images: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    import numpy as np

    from sam2long.export.overlay import paint

    for index, image in enumerate(images):
        true_masks = {obj_id: truth[index] == obj_id for obj_id in LABELS}
        rows = [("truth", true_masks)]
        rows += [(name, dict(zip(LABELS, found[index], strict=True))) for name, found in masks.items()]
        panels = []
        for name, shown in rows:
            big = {obj_id: enlarged(mask) for obj_id, mask in shown.items()}
            panels.append(titled(paint(enlarged(image), big, LABELS), name))
        yield np.concatenate(panels, axis=1)


def enlarged(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((8, 6), title, font_size=18)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=(0, 0, 0))
    draw.text((8, 6), title, font_size=18, fill=(255, 255, 255))
    return np.asarray(image)

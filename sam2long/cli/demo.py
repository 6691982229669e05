"""`sam2long demo`: SAM 2 and SAM2Long side by side, on a real clip and on a generated one, with nothing to download."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
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
    import pandas as pd

    from sam2long.predictor import SAM2LongVideoPredictor

METHODS = {"SAM 2": Sam2LongConfig.sam2(), "SAM2Long": Sam2LongConfig()}

CLIP = Path(__file__).parents[1] / "examples" / "dog.mp4"
DOG = (224, 190, 352, 276)  # a box around it on the first frame
AWAY = range(74, 101)  # the frames on which it is out of the picture, seen by eye
STILLS = (0, 50, 70, 88, 104, 130, 189)  # of the strip: it plays, leaves, is away, comes back

HANDLE = (350, 282, 365, 299)  # a box around the end of its leash, which is 0.1 % of the picture
FOLLOWED = 45  # frames that it is followed for: soon after, the dog jumps and the leash flies

SEED = 2024  # written down before the first run, and not picked for its result
SIZE, ZOOM, FPS = 128, 3, 25  # of the generated video: its frames are small
LABELS = {1: "", 2: ""}

VIDEO, DEMO, STRIP, TIMELINE = "video.mp4", "demo.mp4", "strip.png", "timeline.png"
SMALL, GENERATED, RESULTS = "small.mp4", "generated.mp4", "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Track a dog that leaves the picture and returns, with SAM 2 and with SAM2Long; then a generated video, scored.

    Needs no download: both run on the small model that comes with the package. Takes about two minutes on two CPU
    cores. Look at demo.mp4, strip.png and timeline.png in the output folder; small.mp4 follows something small in the
    same video, and generated.mp4 is the generated one.
    """

    out: Annotated[Path, tyro.conf.arg(help="folder for the results")] = Path("runs/demo")
    frames: Annotated[int, tyro.conf.arg(help="length of the generated video")] = 200
    seed: Annotated[int, tyro.conf.arg(help="another seed makes another generated video")] = SEED
    device: Annotated[str | None, tyro.conf.arg(help="default: the best there is")] = None

    def run(self) -> int:
        from sam2long import build_sam2long_video_predictor
        from sam2long.atomic import write_json

        if self.frames < 3:
            raise ConfigError(
                f"--frames is {self.frames}; expected 3 or more: the first is the prompt, and the last is not scored"
            )
        require_own(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        about = {"sam2long": __version__, "weights": "nano"}
        write_json(self.out / RESULTS, about)  # first: the folder is a demo's, also when this one is interrupted
        predictor = build_sam2long_video_predictor("nano", device=self.device, apply_postprocessing=False)
        with single_thread():
            found = {"dog": real_clip(predictor, self.out), "small": small_clip(predictor, self.out),
                     "generated": generated_clip(predictor, self.out, self.seed, self.frames)}  # fmt: skip
        write_json(self.out / RESULTS, about | found)
        shown = ", ".join(str(self.out / name) for name in (DEMO, SMALL, STRIP))
        print(f"\nlook at {shown} and {self.out / TIMELINE}; then track it yourself:")
        box = ",".join(map(str, DOG))
        print(f"sam2long track {self.out / VIDEO} --box {box} --out runs/dog --overwrite")
        return 0


def require_own(out: Path) -> None:
    """Refuse a folder where files that no demo wrote would be replaced."""
    if not (out / RESULTS).exists():
        foreign = [n for n in (VIDEO, DEMO, STRIP, TIMELINE, SMALL, GENERATED) if (out / n).exists()]
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


def real_clip(predictor: SAM2LongVideoPredictor, out: Path) -> dict[str, Any]:
    """The dog: no true masks, but it is known on which frames it is away."""
    import numpy as np

    from sam2long.export.timeline import write_timeline
    from sam2long.video import open_source

    shutil.copyfile(CLIP, out / VIDEO)
    with open_source(out / VIDEO) as source:
        images, fps = [source.frame(t) for t in range(len(source))], source.fps
    print(f"a real video: a dog plays, is out of the picture on frames {AWAY[0]} to {AWAY[-1]}, and returns; one box")
    masks, reports, seconds = track_both(predictor, str(out / VIDEO), len(images), {1: {"box": DOG}})
    results = {}
    for name in METHODS:
        shown = np.asarray(masks[name][:, 0].any((1, 2)))
        there = [t for t in range(len(images)) if t not in AWAY]
        results[name] = {
            "said_there": int(shown[there].sum()),
            "there": len(there),
            "said_away": int((~shown[list(AWAY)]).sum()),
            "away": len(AWAY),
            "frames_per_second": round(len(images) / seconds[name], 1),
        }
        r = results[name]
        print(
            f"{name:>9}: marks something on {r['said_there']} of the {r['there']} frames with the dog, nothing on "
            f"{r['said_away']} of the {r['away']} without; {r['frames_per_second']} frames per second"
        )
    print("both read the file frame by frame, in turn; frames per second count from opening it to the last mask")
    write_timeline(reports["SAM2Long"], out / TIMELINE, labels={1: "dog"})
    write_side_by_side(out / DEMO, fps or FPS, images, masks, {1: "dog"})
    write_strip(out / STRIP, images, masks)
    say_measured("davis16-val", "davis-long")
    return results


def small_clip(predictor: SAM2LongVideoPredictor, out: Path) -> dict[str, Any]:
    """The end of the dog's leash, from a box: a prompt on something small is answered from a closer look."""
    import numpy as np

    from sam2long.export.overlay import paint
    from sam2long.video import VideoWriter, open_source

    labels = {1: "leash"}
    state = predictor.init_state(str(out / VIDEO))
    predictor.add_new_points_or_box(state, 0, 1, box=HANDLE)
    areas = []
    with open_source(out / VIDEO) as source:
        height, width, last = source.height, source.width, min(FOLLOWED, len(source)) - 1
        with VideoWriter(out / SMALL, source.fps or FPS, width, height) as video:
            for frame, _, logits in predictor.propagate_in_video(state, max_frame_num_to_track=last):
                mask = (logits[0, 0] > 0).cpu().numpy()
                areas.append(int(mask.sum()))
                video.write(paint(source.frame(frame), {1: mask}, labels))
    print(
        f"\nin the same video the end of the leash, {np.median(areas):.0f} of {width * height} pixels: one box, "
        f"marked on {np.count_nonzero(areas)} of {len(areas)} frames"
    )
    return {"frames": len(areas), "marked": int(np.count_nonzero(areas)), "median_pixels": int(np.median(areas))}


def generated_clip(predictor: SAM2LongVideoPredictor, out: Path, seed: int, frames: int) -> dict[str, Any]:
    """A scene with look-alikes, occlusions and returns, whose true masks are known."""
    import numpy as np

    images, truth = generated(seed, frames)
    print(f"\na generated video of {frames} frames, {len(LABELS)} objects, seed {seed}")
    results: dict[str, Any] = {"seed": seed, "frames": frames}
    prompts = {k: {"mask": truth[0] == k} for k in LABELS}
    masks, reports, seconds = track_both(predictor, images, frames, prompts)
    masks = {"truth": np.stack([truth == k for k in LABELS], axis=1), **masks}
    for name in METHODS:
        report = reports[name]
        j = mean_iou(masks[name], truth)
        results[name] = {
            "J": round(j, 4),
            "frames_per_second": round(frames / seconds[name], 1),
            "uncertain_frames": int((report.status == "uncertain").sum()),
            "most_pathways": int(report.pathways.max()),
        }
        speed = results[name]["frames_per_second"]
        print(f"{name:>9}: mean IoU with the true masks {100 * j:.1f} %; {speed} frames per second")
    write_side_by_side(out / GENERATED, FPS, images, masks, LABELS, ZOOM)
    say_measured("synthlong")
    return results


def say_measured(*datasets: str) -> None:
    """One video says little: what the same weights reached on whole data sets."""
    from sam2long.models import figures
    from sam2long.weights import CHECKPOINTS

    print("one video says little; " + "\n".join(figures.lines(CHECKPOINTS["nano"].fetch(), datasets)))


def generated(seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [T, S, S, 3] uint8 and true ids [T, S, S] uint8 of a held-out scene."""
    import numpy as np

    from sam2long.synthetic import generate

    scene = generate("long", seed=seed, num_frames=frames, size=SIZE, num_objects=len(LABELS))
    made = [(frame.image, frame.ids) for frame in scene]
    return np.stack([image for image, _ in made]), np.stack([ids for _, ids in made])


def track_both(
    predictor: SAM2LongVideoPredictor, video: Any, count: int, prompts: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], dict[str, pd.DataFrame], dict[str, float]]:
    """Both methods on one video, frame by frame in turn, so that whatever else the machine does slows both.

    Args:
        video: what `init_state` takes; each method reads it by itself, and the clock runs meanwhile.
        count: its frames.
        prompts: per object, a box or a mask on frame 0.
    Returns:
        By method: masks [T, N, H, W] bool, the track report, and the seconds from opening the video to the last mask.
    """
    import numpy as np
    from tqdm import tqdm

    from sam2long import SAM2LongVideoPredictor

    trackers = {name: SAM2LongVideoPredictor.from_sam2(predictor, config) for name, config in METHODS.items()}
    seconds = dict.fromkeys(METHODS, 0.0)
    masks: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    states, runs = {}, {}

    @contextmanager
    def clock(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - begin

    for name, tracker in trackers.items():
        with clock(name):
            states[name] = tracker.init_state(video)
            for obj_id, prompt in prompts.items():
                add = tracker.add_new_mask if "mask" in prompt else tracker.add_new_points_or_box
                add(states[name], 0, obj_id, **prompt)
            runs[name] = tracker.propagate_in_video(states[name])
    order = list(METHODS)
    for _ in tqdm(range(count), unit="frame", leave=False, disable=None):
        order.reverse()  # nobody is always the second
        for name in order:
            with clock(name):
                _, _, logits = next(runs[name])
                masks[name].append((logits[:, 0] > 0).cpu().numpy())
    reports = {name: tracker.track_report(states[name]) for name, tracker in trackers.items()}
    return {name: np.stack(found) for name, found in masks.items()}, reports, seconds


def mean_iou(masks: np.ndarray, truth: np.ndarray) -> float:
    """J, the mean IoU over objects and frames; as in the benchmarks without the prompted frame and the last."""
    import numpy as np

    ids = truth[1:-1, None] == np.array(list(LABELS))[:, None, None]  # [T, N, H, W]
    found = masks[1:-1]
    inter, union = (ids & found).sum((2, 3)), (ids | found).sum((2, 3))
    return float(np.where(union, inter / np.maximum(union, 1), 1).mean())


def write_side_by_side(
    path: Path, fps: float, images, masks: Mapping[str, np.ndarray], labels: Mapping[int, str], zoom: int = 1
) -> None:
    """A video of one panel per entry of `masks`, each [T, N, H, W] bool, objects in the order of `labels`."""
    import numpy as np

    from sam2long.video import VideoWriter

    height, width = (zoom * n for n in images[0].shape[:2])
    with VideoWriter(path, fps, len(masks) * width, height) as video:
        for t, image in enumerate(images):
            panels = [panel(image, found[t], labels, name, zoom) for name, found in masks.items()]
            video.write(np.concatenate(panels, axis=1))


def write_strip(path: Path, images, masks: Mapping[str, np.ndarray]) -> None:
    """A still per moment, one row per method."""
    import numpy as np
    from PIL import Image

    rows = []
    for name, found in masks.items():
        titles = [f"{name}, frame {t}" if t == STILLS[0] else f"frame {t}" for t in STILLS]
        stills = [panel(images[t], found[t], {1: ""}, title) for t, title in zip(STILLS, titles, strict=True)]
        rows.append(np.concatenate(stills, axis=1))
    strip = Image.fromarray(np.concatenate(rows))
    strip.resize((strip.width // 3, strip.height // 3), Image.Resampling.LANCZOS).save(path)


def panel(image: np.ndarray, found: np.ndarray, labels: Mapping[int, str], title: str, zoom: int = 1) -> np.ndarray:
    from sam2long.export.overlay import paint

    masks = {obj_id: enlarged(mask, zoom) for obj_id, mask in zip(labels, found, strict=True)}
    return titled(paint(enlarged(image, zoom), masks, labels), title)


def enlarged(picture: np.ndarray, zoom: int) -> np.ndarray:
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(18, picture.shape[1] // 18)
    left, top, right, bottom = draw.textbbox((8, 6), title, font_size=size)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=(0, 0, 0))
    draw.text((8, 6), title, font_size=size, fill=(255, 255, 255))
    return np.asarray(image)

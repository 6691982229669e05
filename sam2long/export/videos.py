"""Videos for editing: alpha, matte, green screen. All objects of the export together; choose with `objects`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from sam2long.export.edges import alpha
from sam2long.export.job import ExportJob, MaskFrame
from sam2long.export.overlay import FALLBACK_FPS
from sam2long.video import FrameSource, VideoWriter
from sam2long.video.alpha import ProResWriter, Vp9Writer
from sam2long.video.timecode import later

GREEN = (0, 177, 64)  # chroma key green
RIM = 8  # pixels of the picture that stay around the object, so that coding does not darken its edge
FINE = 12  # x264's and VP9's quality; edges matter more here than size

Compose = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image, [H, W] uint8 opacity -> picture


def write_prores(job: ExportJob) -> None:
    """alpha.mov: ProRes 4444, straight alpha."""
    _write(job, ProResWriter, "alpha.mov", with_alpha)


def write_vp9(job: ExportJob) -> None:
    """alpha.webm: VP9 with alpha."""
    _write(job, Vp9Writer, "alpha.webm", with_alpha)


def write_matte(job: ExportJob) -> None:
    """matte.mp4: the objects white on black."""
    _write(job, VideoWriter, "matte.mp4", lambda image, opacity: np.repeat(opacity[:, :, None], 3, axis=2))


def write_green_screen(job: ExportJob) -> None:
    """green.mp4: the objects before chroma key green."""
    _write(job, VideoWriter, "green.mp4", on_green)


def with_alpha(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """[H, W, 4]: colours stay on the object and a rim around it, everything else is black."""
    near = np.asarray(Image.fromarray(opacity).filter(ImageFilter.MaxFilter(2 * RIM + 1))) > 0
    return np.dstack([image * near[:, :, None], opacity])


def on_green(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """[H, W, 3]: the object before green, mixed where it fades."""
    share = opacity[:, :, None].astype(np.uint16)
    return ((image * share + np.array(GREEN, np.uint16) * (255 - share) + 127) // 255).astype(np.uint8)


def _write(job: ExportJob, writer: type[VideoWriter], name: str, compose: Compose) -> None:
    run, whole = job.run, not job.tracked_only
    first_time = None
    with run.open_video(whole) as source:  # for sound and timecode
        fps = source.fps or run.fps or FALLBACK_FPS
        timecode = _timecode(job, source, fps)
        with writer(
            job.folder / name, fps, run.width, run.height, audio_from=source, looks=source.looks, timecode=timecode,
            crf=FINE,
        ) as out:  # fmt: skip
            for frame, image, time in job.pictures(whole):
                first_time = time if first_time is None else first_time
                out.write(
                    compose(image, alpha(_together(job, frame), job.feather)),
                    None if time is None or first_time is None or not source.variable_rate else time - first_time,
                )
        note = out.audio_note
        if source.looks.pixel_aspect != 1 and not writer.keeps_pixel_aspect:
            job.lost.add("The shape of the pixels, which are not square: this WebM says nothing of it")
    if writer.even_sides and (run.width % 2 or run.height % 2):
        wide, high = run.width + run.width % 2, run.height + run.height % 2
        job.lost.add(
            f"The size: H.264 takes even sides only, so the pictures are {wide} x {high} instead of {run.width} x "
            f"{run.height}, with the last column or row twice"
        )
    job.note_numbers("the video", 0)
    _note_losses(job, note)


def _timecode(job: ExportJob, source: FrameSource, fps: float) -> str | None:
    """The timecode of the first frame; export.json and `lost` say with which frame of the source the video begins."""
    run, first = job.run, source.selection.start
    timecode = source.timecode
    if timecode is None and first and run.stride == 1 and source.native_timecode is None:
        timecode = later(None, first, fps)  # a source without one begins at zero
    job.notes["begins_with"] = {"frame": first, "time": source.time(0), "timecode": timecode, "stride": run.stride}
    if source.native_timecode is not None and timecode is None:
        job.lost.add(f"The timecode {source.native_timecode}: it does not fit this frame rate")
    if first:
        job.lost.add(f"The frames before frame {first} of the source, with which the video begins")
    if run.stride > 1:
        job.lost.add(f"The frames between every {run.stride}th one of the source, as in the run")
    return timecode


def _together(job: ExportJob, frame: MaskFrame) -> np.ndarray:
    whole = np.zeros((job.run.height, job.run.width), bool)
    for _, mask in frame.masks():
        whole |= mask
    return whole


def _note_losses(job: ExportJob, audio_note: str | None) -> None:
    if len(job.run.objects) > 1:
        job.lost.add("Which object is which: the video shows all of them together; --object chooses")
    if any(job.run.labels.values()):
        job.lost.add("The objects' names: a video has no place for them")
    if audio_note:
        job.lost.add(f"The sound: {audio_note}")

"""`export_run`: a finished run into any of the formats that other programs read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam2long._version import __version__
from sam2long.atomic import write_json
from sam2long.errors import ConfigError
from sam2long.export import coco, cvat, labelme, mot, stills, videos, yolo
from sam2long.export.job import ExportJob, Progress
from sam2long.export.recording import VIDEO_NAMES, Recording
from sam2long.folder import MANIFEST, check_replaceable, replacing_folder

WIDEST_EDGE = 500  # pixels
FRAME_NAMES = re.compile(r"[^%/\\\0]*%(0?[1-9][0-9]?)?d[^%/\\\0]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format to export to."""

    description: str  # for users, one line
    write: Callable[[ExportJob], None]
    needs_video: bool = False  # pixels go in, not only masks
    shapes: tuple[str, ...] = ()  # what may stand for a mask; the first is the default
    takes_images: bool = False  # can bring the frames along
    takes_feather: bool = False  # has edges that can fade
    is_video: bool = False
    band: float | None = None  # pixels of an edge that are unknown, when nothing else is asked for; None: it has none
    frame_names: str = VIDEO_NAMES  # what the frames of a video file are called


FORMATS: dict[str, Format] = {
    "palette-png": Format(
        description="PNG per frame, an object id in every pixel (DAVIS, YouTube-VOS, MOSE)",
        write=stills.write_palette_pngs,
    ),
    "tiff": Format(
        description="TIFF label volume, a page per frame, an object id in every pixel (napari, ImageJ)",
        write=stills.write_label_stack,
    ),
    "object-png": Format(
        description="folder of black-and-white PNGs per object; may overlap (SA-V, LVOS)",
        write=stills.write_object_pngs,
    ),
    "coco": Format(
        description="COCO instances JSON with run lengths and track_id",
        write=coco.write_coco,
        takes_images=True,
        frame_names="frame_%06d",  # what CVAT calls the frames of its video tasks; others take any name
    ),
    "sa-v": Format(description="SA-V masklet JSON", write=coco.write_sav, takes_images=True),
    "youtube-vis": Format(
        description="YouTube-VIS / OVIS JSON, a track per object", write=coco.write_youtube_vis, takes_images=True
    ),
    "mot": Format(description="MOT challenge text: boxes with track ids", write=mot.write_mot, takes_images=True),
    "mots": Format(
        description="MOTS challenge text: run lengths with track ids", write=mot.write_mots, takes_images=True
    ),
    "yolo": Format(
        description="YOLO segmentation text (Ultralytics): a polygon per object",
        write=yolo.write_yolo,
        shapes=("polygon",),
        takes_images=True,
    ),
    "labelme": Format(
        description="LabelMe JSON per frame, group_id as track id",
        write=labelme.write_labelme,
        shapes=("polygon", "rectangle", "mask"),
        takes_images=True,
    ),
    "x-anylabeling": Format(
        description="X-AnyLabeling JSON per frame, group_id as track id",
        write=labelme.write_x_anylabeling,
        shapes=("polygon", "rectangle", "rotation"),
        takes_images=True,
    ),
    "cvat": Format(
        description="CVAT for video 1.1 XML, a track per object",
        write=cvat.write_cvat,
        shapes=("polygon", "rectangle", "mask"),
    ),
    "cutout-png": Format(
        description="PNG per frame and object, clear around the object",
        write=stills.write_cutouts,
        needs_video=True,
        takes_feather=True,
    ),
    "trimap": Format(
        description="PNG per frame and object: inside, outside, and a band that a matting program decides",
        write=stills.write_trimaps,
        takes_images=True,
        band=10,
    ),
    "alpha-mov": Format(
        description="ProRes 4444 .mov with alpha, for editors",
        write=videos.write_prores,
        needs_video=True,
        takes_feather=True,
        is_video=True,
    ),
    "alpha-webm": Format(
        description="VP9 .webm with alpha, for browsers",
        write=videos.write_vp9,
        needs_video=True,
        takes_feather=True,
        is_video=True,
    ),
    "matte": Format(
        description="mp4, objects white on black",
        write=videos.write_matte,
        needs_video=True,
        takes_feather=True,
        is_video=True,
    ),
    "green-screen": Format(
        description="mp4, objects before chroma key green",
        write=videos.write_green_screen,
        needs_video=True,
        takes_feather=True,
        is_video=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export has written."""

    folder: Path
    files: list[Path]
    lost: list[str]  # a sentence for each thing that the format could not hold


def export_run(
    run_dir: Path | str,
    to: str,
    out: Path | str | None = None,
    *,
    video: Path | str | None = None,
    objects: Sequence[int] | None = None,
    shape: str | None = None,
    tolerance: float = 0.0,
    images: bool = False,
    frame_names: str | None = None,
    feather: float = 0.0,
    band: float | None = None,
    tracked_only: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> ExportReport:
    """Write the masks of a run in another format; a folder that appears whole or not at all.

    Args:
        run_dir: folder that `sam2long track --out` left, or a masks.jsonl.
        to: a key of FORMATS.
        out: folder to write; None for `export/<format>` in the run.
        video: the video, when it is no longer where the run found it; only formats with pixels need it.
        objects: ids to export; None for all.
        shape: what stands for a mask, one of the format's `shapes`.
        tolerance: pixels that polygons may leave the mask's edge by, to have fewer corners; 0 for exact ones.
        images: also write the frames, where the format has a place for them.
        frame_names: what the frames of a video file are called, with %d, %05d, ... for their number; None for the
            format's own. Images of a folder keep their names.
        feather: pixels on either side of an edge over which alpha fades, in cut-outs and videos; 0 for a hard edge.
        band: pixels on either side of an edge that a trimap leaves unknown; None for 10.
        tracked_only: videos hold the frames from the first tracked one to the last, and a timecode that says where
            they begin; else all of the video's, so that frame k is its frame k.
        overwrite: replace an earlier export in `out`.
        progress: called with the frames done and their number; what it raises ends the export, and nothing stays.
    Raises:
        ConfigError: an unknown format, or an option that it does not have.
        DataError: no run, or files in the way. VideoError: the video is needed and not there.
    """
    chosen = format_named(to)
    check_options(to, shape, tolerance, images, frame_names, feather, band, tracked_only)
    run_dir = Path(run_dir)
    folder = Path(out) if out is not None else (run_dir if run_dir.is_dir() else run_dir.parent) / "export" / to
    check_replaceable(folder, overwrite)
    with Recording(run_dir, video, objects) as run:
        run.video_names = frame_names or chosen.frame_names
        if chosen.needs_video or images:
            run.open_video().close()  # a video that is missing shows before anything is written
        with replacing_folder(folder) as partial:
            job = ExportJob(
                run=run, folder=partial, shape=shape or next(iter(chosen.shapes), None), tolerance=tolerance,
                images=images, feather=feather, band=chosen.band if band is None else band,
                tracked_only=tracked_only, progress=progress,
            )  # fmt: skip
            chosen.write(job)
            if missed := run.untracked():
                job.lost.add(f"{missed} frames between the tracked ones were not looked at; they are as if empty")
            if run.turned and not images:
                job.lost.add(
                    f"How other programs show the pictures: {run.turned} of them are turned by EXIF, and the masks are "
                    "for the pictures as they are stored"
                    + ("; --images copies them so that no program turns them" if chosen.takes_images else "")
                )
            if tolerance:
                job.lost.add(f"The exact edges: polygons may leave them by {tolerance:g} pixels, as asked for")
            lost = job.lost.sentences()
            files = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
            write_json(
                partial / MANIFEST,
                {
                    "format": to,
                    "sam2long": __version__,
                    "video": run.video,
                    "objects": {str(obj_id): label for obj_id, label in run.labels.items()},
                    "lost": lost,
                    **job.notes,
                    "files": [file.as_posix() for file in files],
                },
            )
    return ExportReport(folder=folder, files=[folder / file for file in files], lost=lost)


def format_named(name: str) -> Format:
    """A format of FORMATS.

    Raises:
        ConfigError: there is none of that name; the message suggests one.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"there is no format {name!r}; {hint}the formats are {', '.join(FORMATS)}")


def check_options(
    name: str,
    shape: str | None = None,
    tolerance: float = 0.0,
    images: bool = False,
    frame_names: str | None = None,
    feather: float = 0.0,
    band: float | None = None,
    tracked_only: bool = False,
) -> None:
    """Raise when a format does not have these options.

    Raises:
        ConfigError: with what it has.
    """
    chosen = format_named(name)
    if shape is not None and shape not in chosen.shapes:
        expected = f"it takes {', '.join(chosen.shapes)}" if chosen.shapes else "it has no choice of shapes"
        raise ConfigError(f"{name} does not take the shape {shape!r}; {expected}")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"the tolerance is {tolerance}; expected pixels, 0 or more")
    shape = shape or next(iter(chosen.shapes), None)
    if tolerance and shape != "polygon":
        raise ConfigError(f"a tolerance goes with polygons only, and {name} has {shape or 'none'}; leave it out")
    if frame_names is not None and not FRAME_NAMES.fullmatch(frame_names):
        raise ConfigError(
            f"the frame names are {frame_names!r}; expected a name with one number in it, like frame_%06d"
        )
    if images and not chosen.takes_images:
        raise ConfigError(f"{name} has no place for images of the frames; leave them out")
    if not 0 <= feather <= WIDEST_EDGE:
        raise ConfigError(f"the feather is {feather}; expected pixels, 0 to {WIDEST_EDGE}")
    if feather and not chosen.takes_feather:
        raise ConfigError(f"{name} has no edges that could fade; those of {_that('takes_feather')} can")
    if tracked_only and not chosen.is_video:
        raise ConfigError(f"{name} has tracked frames only; leave that to {_that('is_video')}")
    if band is not None and chosen.band is None:
        raise ConfigError(f"{name} has no unknown band; a band goes with {_that('band')}")
    if band is not None and not 0 < band <= WIDEST_EDGE:
        raise ConfigError(f"the band is {band}; expected pixels, above 0 and at most {WIDEST_EDGE}")


def _that(has: str) -> str:
    return ", ".join(name for name, entry in FORMATS.items() if getattr(entry, has))

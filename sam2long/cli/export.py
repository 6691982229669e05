"""`sam2long export`: the masks of a run in the format of another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from sam2long.errors import ConfigError

EXAMPLES = """Write the masks of a finished run in another format.

examples:
  sam2long export runs/dog --to coco
  sam2long export runs/dog --to x-anylabeling --images --tolerance 1 --out dog_frames
  sam2long export runs/dog --to alpha-mov --object 1 --feather 2
  sam2long export runs/dog --to trimap --band 15 --images
  sam2long export --list"""


@dataclass(kw_only=True)
class Export:
    """Write the masks of a finished run in another format."""

    run_dir: Annotated[Positional[Path | None], arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder that `sam2long track --out` has left."""
    to: Annotated[str | None, arg(metavar="FORMAT", help_behavior_hint="")] = None
    """One of the formats of --list."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder to write. Default: export/FORMAT in RUN."""
    video: Annotated[Path | None, arg(metavar="VIDEO", help_behavior_hint="")] = None
    """The video, when it is no longer where the run found it."""
    object: Annotated[UseAppendAction[tuple[int, ...]], arg(metavar="ID", help_behavior_hint="")] = ()
    """Only this object; may be repeated. Default: all."""
    shape: Annotated[str | None, arg(metavar="SHAPE", help_behavior_hint="")] = None
    """What stands for a mask in formats of shapes: polygon, rectangle, rotation or mask (see --list)."""
    tolerance: Annotated[float, arg(metavar="PIXELS")] = 0.0
    """How far polygons may leave the mask's edge, to have fewer corners; 0 is exact."""
    images: bool = False
    """Write the frames as well, where the format has a place for them."""
    frame_names: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """What the frames of a video file are called. Default: frame_%06d for coco, which is what CVAT calls the frames of
    its video tasks, and %05d for all others."""
    feather: Annotated[float, arg(metavar="PIXELS")] = 0.0
    """How far to both sides of the edge alpha fades, in cut-outs, alpha, matte and green-screen; 0 is a hard edge."""
    band: Annotated[float | None, arg(metavar="PIXELS", help_behavior_hint="")] = None
    """How far to both sides of the edge a trimap is unknown. Default: 10."""
    tracked_only: bool = False
    """Videos begin and end with the tracked frames, and carry the timecode of the first one. Default: the whole video,
    so that frame k is its frame k."""
    overwrite: bool = False
    """Replace an earlier export in --out."""
    list: bool = False
    """Show the formats and end."""
    quiet: bool = False
    """No progress bar and no summary."""

    def run(self) -> int:
        from tqdm import tqdm

        from sam2long.export.convert import FORMATS, export_run
        from sam2long.runs.stopping import stopping_politely

        if self.list:
            width = max(map(len, FORMATS))
            for name, chosen in FORMATS.items():
                shapes = f" (--shape {', '.join(chosen.shapes)})" if len(chosen.shapes) > 1 else ""
                print(f"{name:{width}}  {chosen.description}{shapes}")
            return 0
        if self.run_dir is None or self.to is None:
            missing = "no run given; name a folder that `sam2long track --out` has left"
            raise ConfigError(missing if self.run_dir is None else f"say --to what: {', '.join(FORMATS)}")
        with (
            stopping_politely(_give_up),
            tqdm(desc=self.to, unit="frame", disable=self.quiet, dynamic_ncols=True, leave=False, delay=1) as bar,
        ):

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            report = export_run(
                self.run_dir,
                self.to,
                self.out,
                video=self.video,
                objects=self.object or None,
                shape=self.shape,
                tolerance=self.tolerance,
                images=self.images,
                frame_names=self.frame_names,
                feather=self.feather,
                band=self.band,
                tracked_only=self.tracked_only,
                overwrite=self.overwrite,
                progress=show,
            )
        if not self.quiet:
            files = f"{len(report.files)} files" if len(report.files) > 1 else report.files[0].name
            print(f"{self.to}: {files} in {report.folder}")
            for sentence in report.lost:
                print(f"  not in this format: {sentence}")
        return 0


def _give_up() -> None:
    """An end that is asked for from outside (also SIGTERM) takes the half-written folder away, as Ctrl-C does."""
    raise KeyboardInterrupt

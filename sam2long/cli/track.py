"""`sam2long track`: a video and a prompt in, masks on every frame out."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from sam2long.cli.exit_codes import INTERRUPTED
from sam2long.cli.track_flags import TrackFlags
from sam2long.errors import ConfigError
from sam2long.runs.batch_folder import BatchFolder
from sam2long.runs.opening import absolute
from sam2long.runs.run_folder import COMPLETE, RunFolder
from sam2long.runs.settings import flat, require_same

if TYPE_CHECKING:
    from sam2long.runs.run import Run

EXAMPLES = """Track objects through a video; write masks, an overlay video, a report and a timeline.

examples:
  sam2long track dog.mp4 --box 100,80,300,260 --out runs/dog
  sam2long track dog.mp4 --point 200,150 --neg 400,90 --frame 30 --direction both --out runs/dog
  sam2long track frames/ --mask first_frame.png --model sam2.1-large --out runs/frames
  sam2long track street.mp4 --prompts prompts.json --set num_pathways=1 --out runs/street
  sam2long track dog.mp4 --box 100,80,300,260 --import corrected_frames/ --out runs/dog2
  sam2long track street.mp4 --auto --max-objects 5 --out runs/street
  sam2long track dog.mp4 --text "a brown dog. a ball." --out runs/dog
  sam2long track a.mp4 b.mp4 c/ --prompts prompts.json --out runs/batch
  sam2long track --resume --out runs/dog"""


class Track(TrackFlags):
    """Track objects through a video; write masks, an overlay video, a report and a timeline."""

    def run(self) -> int:
        from sam2long.cli.batch import track_batch

        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other; choose one")
        if not self.resume and not self.videos:
            raise ConfigError("no video given; name a video file or a folder of images")
        if len(self.videos) > 1 or (self.resume and BatchFolder(self.out).exists()):
            return track_batch(self)
        if self.workers != 1:
            raise ConfigError(f"--workers {self.workers} is for several videos; leave it out for one")
        return self._resume() if self.resume else self._begin()

    def _begin(self) -> int:
        from sam2long.runs.beginning import begin_run

        settings = self.asked().settings(absolute(self.videos[0]))
        prompts = self.prompts(self.videos[0], settings.start)  # before anything slow
        with begin_run(
            self.out, settings, prompts, overwrite=self.overwrite, quiet=self.quiet,
            command=shlex.join(["sam2long", *sys.argv[1:]]),
        ) as run:  # fmt: skip
            return self._carry_out(run)

    def _resume(self) -> int:
        from sam2long.runs.beginning import resume_run

        folder = RunFolder(self.out)
        stored = folder.read_settings()
        if self.videos and absolute(self.videos[0]) != stored.video:
            raise ConfigError(f"the run in {self.out} is of {stored.video}, not of {self.videos[0]}; leave VIDEO out")
        if self.prompting():
            raise ConfigError(
                f"the run in {self.out} has its prompts already; leave prompts, --frame and --label out with --resume, "
                "or start anew with --overwrite"
            )
        require_same(self.asked().flat(), flat(stored.to_dict()), f"the run in {self.out}")
        if folder.read_info()["status"] == COMPLETE:
            self.say(f"the run in {self.out} is complete; nothing to do")
            return 0
        with resume_run(self.out, quiet=self.quiet) as run:
            return self._carry_out(run)

    # ---- carrying out -------------------------------------------------------------------------------------------

    def _carry_out(self, run: Run) -> int:
        complete = run.track()
        again = run.folder.resume_command()
        try:
            notes = run.finish()
        except KeyboardInterrupt:
            print(f"\nleft before all files were finished; continue with: {again}", file=sys.stderr)
            return INTERRUPTED
        for note in notes:
            print(f"note: {' '.join(note.split())}", file=sys.stderr)
        self.say(_summary_line(run))
        if not complete:
            print(f"stopped; continue with: {again}", file=sys.stderr)
            return INTERRUPTED
        return 0


def _summary_line(run: Run) -> str:
    objects = list(run.info.get("summary", {}).items())
    lines = [f"{run.frames_tracked} frames tracked; results in {run.folder.path}"]
    for obj_id, entry in objects[:10]:
        name = f"{obj_id} {entry['label']}".strip()
        lines.append(
            f"  object {name}: visible on {entry['visible']} of {entry['frames']} frames, "
            f"uncertain on {entry['uncertain']}, absent on {entry['absent']}"
        )
    return "\n".join(lines)

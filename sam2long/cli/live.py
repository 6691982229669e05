"""`sam2long live`: a camera, a stream or a file, tracked as the frames come."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sam2long.cli.exit_codes import INCOMPLETE
from sam2long.cli.flags import Method, Network, Pointing, asked, shown
from sam2long.errors import ConfigError, PromptError
from sam2long.runs import opening
from sam2long.runs.opening import absolute
from sam2long.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from sam2long.runs.prompting import ObjectPrompt
    from sam2long.runs.settings import RunSettings
    from sam2long.video.source import Frame

RATE_FRAMES = 30  # over how many frames the rate on the screen is taken

EXAMPLES = """Track what a camera, a stream or a file shows, frame by frame as it comes; show it, record it, or both.

examples:
  sam2long live 0 --box 100,80,300,260                                   # first camera, in a window
  sam2long live rtsp://camera/stream --point 320,240 --keep-up --out runs/gate
  sam2long live dog.mp4 --box 100,80,300,260 --realtime --keep-up --out runs/dog"""


@dataclass(kw_only=True)
class Live:
    """Track what a camera, a stream or a file shows, frame by frame as it comes; show it, record it, or both."""

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """Camera number, URL (rtsp, http, ...), video file, or folder of images."""
    out: Annotated[Path | None, shown("DIR")] = None
    """Record to this folder: masks.jsonl, overlay.mp4, run.json."""
    show: bool = False
    """Open a window, also with --out; without --out there always is one. Key q ends."""
    keep_up: bool = False
    """Skip frames whenever tracking is slower than the source, so that the latest frame is always the next one."""
    realtime: bool = False
    """Play a file at its own pace, as a camera would."""
    reconnect: bool = False
    """When a camera or a stream breaks off, connect again and go on, for up to two minutes."""
    max_frames: Annotated[int | None, shown("N")] = None
    """End after this many tracked frames."""
    overwrite: bool = False
    """Replace the run in --out."""
    quiet: bool = False
    """No progress and no summary."""
    pointing: Pointing = field(default_factory=Pointing)
    """Where the objects are, on the first frame."""
    network: Network = field(default_factory=Network)
    """Which network, and where."""
    method: Method = field(default_factory=Method)
    """How hypotheses and memories are chosen; live tracking always decides at once (emit=online)."""

    def run(self) -> int:
        from sam2long.export.fonts import note_on_fonts
        from sam2long.runs.prompting import labels_of, numbered_otherwise

        settings = self._settings()
        prompts = self._prompts()  # before anything slow
        if (numbers := numbered_otherwise(prompts)) and not self.quiet:
            print(numbers, flush=True)
        if note := note_on_fonts(labels_of(prompts)):
            print(f"note: {note}", file=sys.stderr)
        folder = None if self.out is None else RunFolder(self.out)
        if folder is not None:
            folder.require_usable(self.overwrite, "replace it with --overwrite, or choose another --out")
        with folder or nullcontext():
            session = self._carry_out(settings, prompts, folder)
        for note in session.notes():
            print(f"note: {note}", file=sys.stderr)
        if not self.quiet:
            print(session.summary() + (f"; results in {self.out}" if self.out else ""))
        return INCOMPLETE if session.broken_off else 0

    def _carry_out(self, settings: RunSettings, prompts: list[ObjectPrompt], folder: RunFolder | None) -> _Session:
        from sam2long.cli.window import Window
        from sam2long.runs.prompting import labels_of
        from sam2long.runs.recorder import Recorder
        from sam2long.runs.versions import versions
        from sam2long.video import open_source

        window = Window(f"sam2long live {self.source}") if self.show or self.out is None else None
        predictor = opening.build_predictor(settings)
        is_camera = self.source.isdecimal() and not os.path.exists(self.source)
        address = int(self.source) if is_camera else self.source
        source = open_source(address, prefetch=0, reconnect=self.reconnect)
        labels = labels_of(prompts)
        info = {
            "command": shlex.join(["sam2long", *sys.argv[1:]]),
            "live": {"keep_up": self.keep_up, "realtime": self.realtime, "reconnect": self.reconnect},
            "settings": settings.to_dict(),
            "prompts": [prompt.describe() for prompt in prompts],
            "versions": versions(),
            "device": str(predictor.device),
            "objects": {str(obj_id): {"first": 0, "last": 0, "label": label} for obj_id, label in labels.items()},
        }
        session = _Session(predictor, prompts, source, self.keep_up, self.realtime, self.max_frames, self.quiet)
        recorder = None
        try:
            first = session.begin()  # prompts that do not fit show here, before an older run is replaced
            recorder = None if folder is None else Recorder(folder, source, labels, info)
            session.track(first, labels, recorder, window)
        except Exception as error:
            session.failure = " ".join(str(error).split()) or type(error).__name__
            raise
        finally:
            session.close()
            if window is not None:
                window.close()
            if recorder is not None and session.tracked:
                recorder.close(session.numbers(), session.notes(), session.broken_off)
            elif recorder is not None:
                recorder.abort()
        return session

    def _settings(self) -> RunSettings:
        if self.max_frames is not None and self.max_frames < 1:
            raise ConfigError(f"--max-frames is {self.max_frames}; expected 1 or more")
        if (emit := self.method.given().get("emit", "online")) != "online":
            raise ConfigError(f"--set emit={emit} does not go with live tracking, which always decides at once")
        return asked(self.network, self.method, {}, emit="online").settings(absolute(self.source))

    def _prompts(self) -> list[ObjectPrompt]:
        prompts = self.pointing.own(0)
        if prompts and self.pointing.prompts is not None:
            raise PromptError("--prompts does not go with --box, --point or --mask; put all objects into the file")
        if self.pointing.label is not None and not prompts:
            raise PromptError("--label names the object of --box, --point or --mask; leave it out without them")
        prompts = self.pointing.of_file(self.source) or prompts
        imported = _of_one_frame(self.pointing.imported(self.source))
        prompts = [*prompts, *(replace(prompt, frame=0) for prompt in imported)]
        if not prompts:
            raise PromptError(
                "nothing to track: say where the object is on the first frame, with --box, --point, --mask, --prompts "
                "or --import"
            )
        objects = [prompt.obj_id for prompt in _of_one_frame(prompts)]
        if len(set(objects)) < len(objects):
            raise PromptError(f"object {max(objects, key=objects.count)} is prompted twice; leave one of the two out")
        if prompts[0].frame != 0:
            raise PromptError(
                f"a prompt is about frame {prompts[0].frame}; live tracking takes them on the first frame, 0"
            )
        return prompts


def _of_one_frame(prompts: list[ObjectPrompt]) -> list[ObjectPrompt]:
    frames = sorted({prompt.frame for prompt in prompts})
    if len(frames) > 1:
        raise PromptError(
            f"the prompts are about frames {', '.join(map(str, frames[:5]))}; live tracking takes those of one frame, "
            "the first that it sees"
        )
    return prompts


class _Session:
    """Frames in, masks out, and the numbers about it."""

    def __init__(
        self,
        predictor: Any,
        prompts: list[ObjectPrompt],
        source: Any,
        keep_up: bool,
        realtime: bool,
        max_frames: int | None,
        quiet: bool,
    ) -> None:
        from sam2long.video.feed import FrameFeed

        self._predictor, self._prompts, self._source = predictor, prompts, source
        self._max_frames, self._quiet = max_frames, quiet
        self._feed = FrameFeed(source, latest=keep_up, realtime=realtime)
        self._state: Any = None
        self._frames: Iterator[Frame] = iter(self._feed)
        self._moments: deque[float] = deque(maxlen=RATE_FRAMES)
        self._begun = 0.0
        self._seconds = 0.0
        self.tracked = 0
        self.failure: str | None = None  # what ended it, where it was not the source

    def begin(self) -> Frame:
        """The first frame, prompted."""
        from sam2long.errors import VideoError
        from sam2long.tracking.prompts import require_sense

        first = next(self._frames, None)
        if first is None:
            raise VideoError("the source gave no frame; look at it with a player first")
        self._begun = time.monotonic()
        self._state = self._predictor.init_stream(first.image)
        height, width = first.image.shape[:2]
        for prompt in self._prompts:
            require_sense(prompt, height=height, width=width, image_size=self._predictor.image_size)
            prompt.give(self._predictor, self._state, 0)
        return first

    def track(self, first: Frame, labels: Mapping[int, str], recorder: Any, window: Any) -> None:
        """Until the source ends, or somebody ends it."""
        from tqdm import tqdm

        from sam2long.export.overlay import paint
        from sam2long.runs.stopping import stopping_politely

        waiting = deque([first])  # frames whose masks have not come yet
        with (
            stopping_politely(self._stop),
            tqdm(unit="frame", desc="live", disable=self._quiet, dynamic_ncols=True) as bar,
        ):
            try:
                for masks in self._masks(waiting):
                    frame = waiting.popleft()
                    self.tracked += 1
                    self._moments.append(time.monotonic())
                    bar.set_postfix(dropped=self._feed.dropped, refresh=False)
                    bar.update()
                    picture = paint(frame.image, masks, labels)
                    if recorder is not None:
                        recorder.write(frame, masks, picture, self._moments[-1])
                    if window is not None and not window.draw(picture, self._rate(), self._feed.dropped):
                        break
                    if self.tracked == self._max_frames:
                        break
            finally:
                self._seconds = time.monotonic() - self._begun

    def close(self) -> None:
        self._feed.close()

    def _masks(self, waiting: deque[Frame]) -> Iterator[dict[int, np.ndarray]]:
        """The masks of one frame after the other; the last ones when the stream has ended."""
        for frame in self._frames:
            waiting.append(frame)
            yield from map(_as_masks, self._predictor.track(self._state, frame.image))
        yield from map(_as_masks, self._predictor.finish(self._state))

    @property
    def broken_off(self) -> bool:
        return self.failure is not None or (self._source.damage is not None and self._source.num_frames is None)

    def notes(self) -> list[str]:
        """Sentences for the user and for run.json."""
        found = [*self._source.notes, self._source.damage, self.failure]
        if lost := getattr(self._source, "lost", 0):
            found.append(f"{lost} frames of the stream were lost")
        return [note for note in found if note]

    def _stop(self) -> None:
        if not self._quiet:
            print("\nstopping after this frame (Ctrl-C again: leave at once)", file=sys.stderr)
        self._feed.stop()

    def _rate(self) -> float:
        """Frames per second, lately."""
        span = self._moments[-1] - self._moments[0]
        return (len(self._moments) - 1) / span if span > 0 else 0.0

    def numbers(self) -> dict[str, Any]:
        from sam2long.runs.versions import peak_memory

        return {
            "frames_tracked": self.tracked,
            "frames_dropped": self._feed.dropped,
            "frames_lost": getattr(self._source, "lost", 0),
            "frames_per_second": round(self.tracked / self._seconds, 2) if self._seconds else None,
            "seconds": {"track": round(self._seconds, 3)},
            "peak_memory_mib": peak_memory(self._predictor.device),
        }

    def summary(self) -> str:
        rate = self.tracked / self._seconds if self._seconds else 0.0
        return f"{self.tracked} frames tracked, {rate:.1f} per second, {self._feed.dropped} dropped"


def _as_masks(result: tuple[int, list[int], Any]) -> dict[int, np.ndarray]:
    _, obj_ids, logits = result
    return dict(zip(obj_ids, (logits[:, 0] > 0).cpu().numpy(), strict=True))

"""The masks of a finished run, with what other formats want to know about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam2long.errors import ConfigError, DataError, VideoError
from sam2long.export.masks import MaskReader
from sam2long.naming import printable
from sam2long.video import FrameSource, open_source
from sam2long.video.folder import ImageFolderSource
from sam2long.video.names import numbers_in

VIDEO_NAMES = "%05d"
NO_LABEL = "object"  # the class of objects that were given no name


class Recording:
    """Read access to a run, frame by frame.

    Args:
        run: folder that `sam2long track --out` left, or its masks.jsonl.
        video: the video, when it is not where the run found it.
        objects: ids to look at; None for all.
    Attributes:
        height, width: of every mask. fps: None when unknown.
        frames: indices of the tracked frames, rising. objects: ids, rising.
        labels: object id -> name, "" for none.
        name: of the video, without folder and ending.
        video_names: what frames of a video file are called, with %d for their number.
    Raises:
        DataError: no run, no masks, or no size in it. ConfigError: objects that the run has not.
    """

    def __init__(self, run: Path, video: Path | str | None = None, objects: Sequence[int] | None = None) -> None:
        path = run / "masks.jsonl" if run.is_dir() or not run.suffix else run
        if not path.is_file():
            raise DataError(f"{run} holds no masks.jsonl; expected a folder that `sam2long track --out` has left")
        if run.is_file() and run.suffix != ".jsonl":
            raise DataError(f"{run} is no run; expected a folder that `sam2long track --out` has left")
        self.masks = MaskReader(path)
        header = self.masks.header
        self.frames = self.masks.frames
        if not self.frames:
            raise DataError(f"{path} has no masks yet; track at least one frame first")
        try:
            self.height, self.width = int(header["height"]), int(header["width"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path} says no height and width in its first line; expected those of the video") from None
        self.fps: float | None = header.get("fps")
        self.start, self.stride = int(header.get("start") or 0), int(header.get("stride") or 1)
        self.objects = self._chosen(objects)
        # One line each: text formats have a name per line.
        names = {
            int(obj_id): printable(" ".join(str(label or "").split()))
            for obj_id, label in (header.get("objects") or {}).items()
        }
        self.labels = {obj_id: names.get(obj_id, "") for obj_id in self.objects}
        self.video = str(video if video is not None else header.get("video") or "")
        self.name = printable(Path(self.video).stem) or "video"
        self._files: list[Path] | None = None
        self.turned = 0  # images that other programs turn, because their EXIF data say so
        self._find_images()
        self._length: int | None = None
        self.video_names = VIDEO_NAMES

    def class_of(self, obj_id: int) -> str:
        return self.labels[obj_id] or NO_LABEL

    @property
    def classes(self) -> list[str]:
        """Names of all classes, in the order of the objects."""
        return list(dict.fromkeys(self.class_of(obj_id) for obj_id in self.objects))

    def source_frame(self, frame: int) -> int:
        """The number of a tracked frame in the video, also of one without masks."""
        return self.start + frame * self.stride

    def first_index(self, whole: bool) -> int:
        """The index of the first tracked frame, or of the whole video's first one, below 0 where that lies before."""
        return -(self.start // self.stride) if whole else self.frames[0]

    def time(self, frame: int) -> float | None:
        """Seconds after the video's first frame of a tracked frame; None where there is no clock."""
        return self.masks.time(frame)

    def untracked(self) -> int:
        """Frames between the first and the last tracked one that nobody looked at, e.g. dropped by `live --keep-up`."""
        return self.frames[-1] - self.frames[0] + 1 - len(self.frames)

    def stem(self, frame: int) -> str:
        """Name of a frame's file: that of its image where the video is a folder of them, else its number."""
        number = self.source_frame(frame)
        return self._files[number].stem if self._files else self.video_names % number

    def image_name(self, frame: int) -> str:
        """File name of a frame's picture, which exists where the video is a folder of images."""
        return self._files[self.source_frame(frame)].name if self._files else f"{self.stem(frame)}.jpg"

    def renumbered(self, first: int) -> str | None:
        """What becomes of the images' numbers in a format that counts frames from `first`; None when they stay."""
        stems = [file.stem for file in self._files or ()]
        numbers = numbers_in(stems)
        if numbers is None or numbers in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
            return None
        frame = next((f for f in self.frames if (n := self.source_frame(f)) + first != numbers[n]), self.frames[0])
        number = self.source_frame(frame)
        return f"frames are counted from {first} by position, and {stems[number]} is its frame {number + first}"

    def image_file(self, frame: int) -> Path | None:
        """A frame's picture, where the video is a folder of images."""
        return self._files[self.source_frame(frame)] if self._files else None

    def rles(self, frame: int) -> dict[int, dict[str, Any]]:
        """Object id -> COCO run lengths of the objects looked at."""
        return {obj_id: rle for obj_id, rle in self.masks.rles(frame).items() if obj_id in self.labels}

    def video_length(self) -> int:
        """Frames of the whole video; as far as the run looked, when the video is not there."""
        if self._length is None:
            known = self.source_frame(max(self.masks.header.get("num_frames") or 0, self.frames[-1] + 1) - 1) + 1
            if self.video and Path(self.video).exists():
                known = max(known, open_source(self.video).num_frames or 0)
            self._length = known
        return self._length

    def open_video(self, whole: bool = False) -> FrameSource:
        """The frames from the first to the last tracked one, or of the whole video: its frame i is tracked frame
        `first_index(whole) + i`.

        Raises:
            VideoError: not there, or not the video that was tracked.
        """
        if not self.video or not Path(self.video).exists():
            raise VideoError(
                f"the video {self.video or '(unknown)'} is not where the run found it; say where it is with --video"
            )
        first, last = self.source_frame(self.frames[0]), self.source_frame(self.frames[-1])
        if whole:
            source = open_source(self.video, start=self.source_frame(self.first_index(True)), stride=self.stride)
        else:
            source = open_source(self.video, start=first, stop=last + 1, stride=self.stride)
        if (source.height, source.width) != (self.height, self.width):
            raise VideoError(
                f"{self.video} is {source.width}x{source.height} and the masks {self.width}x{self.height} "
                "(width x height); say with --video which video was tracked"
            )
        expected = self.frames[-1] - self.first_index(whole) + 1
        if source.num_frames is not None and source.num_frames < expected:
            raise VideoError(
                f"{self.video} ends before frame {last}, which has masks; say with --video which video was tracked"
            )
        return source

    def close(self) -> None:
        self.masks.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _chosen(self, objects: Sequence[int] | None) -> list[int]:
        if objects is None:
            return self.masks.objects
        unknown = sorted(set(objects) - set(self.masks.objects))
        if unknown or not objects:
            there = ", ".join(map(str, self.masks.objects))
            raise ConfigError(f"the run has no object {', '.join(map(str, unknown)) or '(none)'}; its objects: {there}")
        return sorted(set(objects))

    def _find_images(self) -> None:
        if not self.video or not Path(self.video).is_dir():
            return
        source = open_source(self.video)
        if isinstance(source, ImageFolderSource) and len(source.files) > self.source_frame(self.frames[-1]):
            self._files, self.turned = source.files, source.turned

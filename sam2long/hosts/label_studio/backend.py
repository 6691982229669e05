"""From a request for predictions to regions: one model, one request at a time, each answered once."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sam2long.errors import ConfigError, DataError, PromptError, sentence
from sam2long.export.polygons import box
from sam2long.hosts.boxes import Box
from sam2long.hosts.label_studio.files import Files
from sam2long.hosts.label_studio.regions import Clock, Tag, box_of, brush, keyframes, tags
from sam2long.imports.prompt import ObjectPrompt
from sam2long.video import open_source

VIDEO, IMAGE = "videorectangle", "brushlabels"  # the regions that are made
KEPT = 64  # answers, and videos' regions, that are remembered
NEAR = 1e-3  # percent by which a keyframe that the user has not touched may differ from the one it was given as
LABELS = ("labels", "keypointlabels", "rectanglelabels", "brushlabels")  # where a region has its label


class Backend:
    """What answers Label Studio.

    Args:
        predictor: a SAM2LongVideoPredictor. version: what Label Studio calls the model. files: of the tasks.
    """

    def __init__(self, predictor: Any, version: str, files: Files) -> None:
        self.predictor, self.version, self.files = predictor, version, files
        self._projects = files.known()  # project -> address and token of its server
        self._lock = threading.Lock()  # of what is remembered
        self._model = threading.Lock()
        self._answers: OrderedDict[str, Future] = OrderedDict()
        self._given: OrderedDict[tuple[str, str], tuple[dict[int, Box], list[Any]]] = OrderedDict()

    def setup(self, project: str, config: str, address: str | None, token: str | None) -> dict[str, Any]:
        """Remember where a project's files are.

        Raises:
            ConfigError: its labelling config has no place for what we make.
        """
        _target(tags(config))
        with self._lock:
            self._projects[project] = address, token
            self.files.remember(self._projects)
        return {"model_version": self.version}

    def predict(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A prediction for each task.

        A request that comes again, because Label Studio did not wait for the answer, gets that answer.

        Raises:
            Sam2LongError: what is wrong, for the user.
        """
        tasks, project = request.get("tasks"), str(request.get("project", ""))
        if not isinstance(tasks, list) or not tasks:
            raise DataError("the request has no tasks; expected those of Label Studio")
        config = tags(str(request.get("label_config", "")))
        context = (request.get("params") or {}).get("context") or {}
        asked = [self._prompts(task, context) for task in tasks]
        return [self._once(project, config, task, regions) for task, regions in zip(tasks, asked, strict=True)]

    def _prompts(self, task: Mapping[str, Any], context: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The regions that say where objects are: what the user has just drawn, or else what has been submitted."""
        regions = context.get("result")
        if not regions:
            drawn = [*(task.get("drafts") or []), *(task.get("annotations") or [])]
            regions = next((each["result"] for each in drawn if each.get("result")), [])
        if not regions:
            raise PromptError(
                f"task {task.get('id')} has no prompt; draw a rectangle around the object (on images also a keypoint)"
            )
        return [region for region in regions if isinstance(region, dict) and isinstance(region.get("value"), dict)]

    def _once(self, project: str, config: list[Tag], task: Mapping[str, Any], regions: list[Any]) -> dict[str, Any]:
        key = json.dumps([project, task.get("id"), task.get("data"), regions], sort_keys=True, default=str)
        with self._lock:
            future = self._answers.get(key)
            if mine := future is None:
                future = self._answers[key] = Future()
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)
        if mine:
            try:
                future.set_result(self._predicted(project, config, task, regions))
            except BaseException as error:
                self._answers.pop(key, None)  # what failed may be tried again
                future.set_exception(error)
        return future.result()

    def _predicted(
        self, project: str, config: list[Tag], task: Mapping[str, Any], regions: list[Any]
    ) -> dict[str, Any]:
        kind, control, shown = _target(config)
        name = shown.attributes.get("value", "").lstrip("$")
        url = (task.get("data") or {}).get(name)
        if not isinstance(url, str) or not url:
            raise DataError(f"task {task.get('id')} has no {name}; expected the address of its file")
        path = self.files.fetch(url, *self._projects.get(project, (None, None)))
        with self._model:
            if kind == VIDEO:
                made = self._tracked(f"{project} {task.get('id')}", path, control, shown, regions)
            else:
                made = self._segmented(path, control, regions)
        return {"result": made, "model_version": self.version}

    # ---- videos -------------------------------------------------------------------------------------------------

    def _tracked(self, task: str, path: Path, control: Tag, shown: Tag, regions: list[Any]) -> list[dict[str, Any]]:
        """Each region through the whole video: forward from its first prompt, and backward."""
        state = self.predictor.init_state(str(path))
        with open_source(str(path)) as source:
            size, clock = (source.height, source.width), Clock.of(shown, source.fps, len(source))
        regions = [region for region in regions if region.get("type") == VIDEO and region["value"].get("sequence")]
        if not regions:
            raise PromptError("there is no rectangle in the request; draw one around the object on any frame")
        prompts = [self._said(task, region, clock, *size) for region in regions]
        for obj_id, by_frame in enumerate(prompts, 1):
            for frame, given in by_frame.items():
                ObjectPrompt(frame=frame, obj_id=obj_id, box=given).give(self.predictor, state, frame)
        boxes: list[dict[int, Box | None]] = [{} for _ in regions]
        firsts = [min(by_frame) for by_frame in prompts]
        for start, reverse in ((min(firsts), False), (max(firsts), True)):
            results = self.predictor.propagate_in_video(state, start_frame_idx=start, reverse=reverse)
            with closing(results):
                for frame, _, logits in results:
                    masks = (logits[:, 0] > 0).cpu().numpy()
                    for mask, first, found in zip(masks, firsts, boxes, strict=True):
                        if frame < first if reverse else frame >= first:
                            found[frame] = _corners(mask) if mask.any() else None
        made = []
        for region, found, by_frame in zip(regions, boxes, prompts, strict=True):
            value = {
                **region["value"], "sequence": keyframes(found, clock, *size),
                "framesCount": region["value"].get("framesCount") or clock.frames,
                "duration": region["value"].get("duration") or clock.duration,
            }  # fmt: skip
            made.append({**_named(region, control), "type": VIDEO, "value": value})
            self._given[task, str(region.get("id"))] = by_frame, value["sequence"]
            self._given.move_to_end((task, str(region.get("id"))))
        while len(self._given) > KEPT:
            self._given.popitem(last=False)
        return made

    def _said(self, task: str, region: Mapping[str, Any], clock: Clock, height: int, width: int) -> dict[int, Box]:
        """What the user has said of a region, by frame: its keyframes, but those that this backend has put there."""
        said, given = self._given.get((task, str(region.get("id"))), ({}, []))
        sequence = region["value"]["sequence"]
        ours = [keyframe for keyframe in sequence if any(_alike(keyframe, other) for other in given)]
        if not ours:
            said = {}  # another one, or drawn anew
        theirs = [keyframe for keyframe in sequence if keyframe not in ours]
        now = {clock.ours(int(keyframe["frame"])): box_of(keyframe, height, width) for keyframe in theirs}
        return dict(sorted({**said, **now}.items()))

    # ---- images -------------------------------------------------------------------------------------------------

    def _segmented(self, path: Path, control: Tag, regions: list[Any]) -> list[dict[str, Any]]:
        """One mask out of all keypoints and the rectangle that were drawn."""
        try:
            with Image.open(path) as image:
                picture = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            what = sentence(error) if isinstance(error, OSError) and error.strerror else "it is no picture"
            raise DataError(f"{path.name} cannot be read ({what}); expected a JPEG or PNG") from None
        height, width = picture.shape[:2]
        points, labels, drawn = [], [], None
        for region in regions:
            value, kind = region["value"], str(region.get("type", ""))
            if kind.startswith("keypoint"):
                points.append((float(value["x"]) * width / 100, float(value["y"]) * height / 100))
                labels.append(int(bool(region.get("is_positive", value.get("is_positive", True)))))
            elif kind.startswith("rectangle"):
                drawn = box_of(value, height, width)
        if drawn is None and 1 not in labels:
            raise PromptError("nothing says what the object is; draw a rectangle around it, or a keypoint on it")
        prompt = ObjectPrompt(frame=0, obj_id=1, points=tuple(points), point_labels=tuple(labels), box=drawn)
        _, _, logits = prompt.give(self.predictor, self.predictor.init_stream(picture), 0)
        mask = (logits[0, 0] > 0).cpu().numpy()
        if not mask.any():
            return []
        value = {"format": "rle", "rle": brush(mask), IMAGE: _labels(regions[-1])}
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        return [{**_named(regions[-1], control), "type": IMAGE, **size, "value": value}]


def _target(config: list[Tag]) -> tuple[str, Tag, Tag]:
    """What is to be made, the tag that has it, and the tag of the video or picture.

    Raises:
        ConfigError: the labelling config has neither.
    """
    shown = {tag.name: tag for tag in config if tag.kind in ("Video", "Image")}
    for tag in config:
        kind = {"VideoRectangle": VIDEO, "BrushLabels": IMAGE}.get(tag.kind)
        if kind and tag.to_name in shown:
            return kind, tag, shown[tag.to_name]
    raise ConfigError(
        "the labelling config has neither a VideoRectangle for a Video nor BrushLabels for an Image; add one of them"
    )


def _named(region: Mapping[str, Any], control: Tag) -> dict[str, Any]:
    """What a region keeps: its id, and where it belongs."""
    return {"id": region.get("id"), "from_name": control.name, "to_name": control.to_name, "origin": "prediction"}


def _labels(region: Mapping[str, Any]) -> list[str]:
    value = region["value"]
    return next((list(value[name]) for name in LABELS if value.get(name)), [])


def _corners(mask: np.ndarray) -> Box:
    left, top, right, bottom = box(mask)
    return left, top, right + 1, bottom + 1


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    sides = ("frame", "x", "y", "width", "height")
    return all(abs(float(one.get(side, -1)) - float(other[side])) < NEAR for side in sides)

"""The dock widget: layers in, a Labels layer out, the tracker in a thread between them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import napari
import numpy as np
from magicgui.widgets import ComboBox, Container, Label, LineEdit, PushButton, SpinBox, create_widget
from napari.layers import Image, Labels, Points, Shapes
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QCompleter, QFileDialog

from sam2long.errors import PromptError, Sam2LongError, VideoError, sentence
from sam2long.export.convert import FORMATS, export_run
from sam2long.hosts.model import load_model
from sam2long.hosts.napari import saving
from sam2long.hosts.napari.masks import MaskStack
from sam2long.hosts.napari.prompts import OBJECT, POSITIVE, collect
from sam2long.hosts.napari.tracker import BACKWARD, BOTH, FORWARD, Tracker
from sam2long.hosts.napari.video import LayerVideo
from sam2long.weights import CHECKPOINTS

CLICKS, BOXES, MASKS = "SAM2Long clicks", "SAM2Long boxes", "SAM2Long masks"
YES, NO = "the object", "not the object"
LAG = 16  # frames that a mask waits for the hypotheses to agree, so that masks are seen while they come
PLACING = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")  # of a layer in the world


class TrackWidget(Container):
    """Track objects through an Image layer."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(labels=True)
        self._viewer = napari_viewer
        self._remembered = QSettings("sam2long", "napari")
        self._model: tuple[tuple[str, str], Any] | None = None  # what was chosen, and the predictor
        self._tracker: Tracker | None = None
        self._worker: Any = None
        self._layer: Labels | None = None  # the masks of the tracker

        self.image = create_widget(annotation=Image, label="Image")
        self.axis = ComboBox(label="Track along", choices=self._axes, visible=False)
        self.points = create_widget(annotation=Points | None, label="Clicks")
        self.shapes = create_widget(annotation=Shapes | None, label="Boxes")
        self.new_layers = PushButton(text="New prompt layers")
        self.object = SpinBox(value=1, min=1, max=2**31 - 1, label="Object")
        self.kind = ComboBox(choices=[YES, NO], label="A click says")
        self.model = LineEdit(value=self._remembered.value("model", "nano"), label="Model")
        self.model.tooltip = f"{', '.join(CHECKPOINTS)}, hf:HUB_ID, a sam2 config name, or the path of a YAML"
        self.model.native.setCompleter(QCompleter(list(CHECKPOINTS)))
        self.checkpoint = LineEdit(value=self._remembered.value("checkpoint", ""), label="Weights")
        self.checkpoint.tooltip = "A .pt or .safetensors; only where the model is a config name or a YAML"
        self.direction = ComboBox(choices=[FORWARD, BACKWARD, BOTH], label="Direction")
        self.first = SpinBox(min=0, max=0, label="First frame")
        self.last = SpinBox(min=0, max=0, label="Last frame")
        self.start, self.cancel = PushButton(text="Track"), PushButton(text="Cancel", enabled=False)
        self.undo, self.next = PushButton(text="Undo last track"), PushButton(text="Next frame to look at")
        self.save, self.reopen = PushButton(text="Save run ..."), PushButton(text="Open run ...")
        self.format = ComboBox(choices=list(FORMATS), label="Format")
        self.export = PushButton(text="Export ...")
        self.status = Label(value="")
        rows = [Container(widgets=pair, layout="horizontal", labels=False) for pair in (
            (self.start, self.cancel), (self.undo, self.next), (self.save, self.reopen)
        )]  # fmt: skip
        self.extend([
            self.image, self.axis, self.points, self.shapes, self.new_layers, self.object, self.kind, self.model,
            self.checkpoint, self.direction, self.first, self.last, *rows, self.format, self.export, self.status,
        ])  # fmt: skip

        self.image.changed.connect(self._image_changed)
        self.axis.changed.connect(self._axis_changed)
        for control in (self.object, self.kind):
            control.changed.connect(self._say_for_new)
        for button, act in {
            self.new_layers: self.add_prompt_layers, self.start: self.track, self.cancel: self.stop,
            self.undo: self.undo_track, self.next: self.go_to_next, self.save: self._save_as, self.reopen: self._open,
            self.export: self._export_to,
        }.items():  # fmt: skip
            button.changed.connect(self._in_words(act))
        napari_viewer.dims.events.current_step.connect(self._show_why)
        self._image_changed()

    # ---- layers -------------------------------------------------------------------------------------------------

    def _axes(self, _: Any = None) -> list[tuple[str, int]]:
        layer = self.image.value if hasattr(self, "image") else None
        if layer is None:
            return []
        return [(str(name), at) for at, name in enumerate(layer.axis_labels[: layer.ndim - 2])]

    def _image_changed(self) -> None:
        self.axis.reset_choices()
        self.axis.visible = len(self.axis.choices) > 1
        self._axis_changed()

    def _axis_changed(self) -> None:
        layer = self.image.value
        if layer is None or self.axis.value is None:
            return
        last = (layer.data[0] if layer.multiscale else layer.data).shape[self.axis.value] - 1
        self.first.max = self.last.max = max(last, 0)
        self.first.value, self.last.value = 0, max(last, 0)

    def add_prompt_layers(self) -> None:
        """A layer for clicks and one for boxes, that lie on the image."""
        image = self._image()
        placed = {name: getattr(image, name) for name in PLACING}
        shared = {"ndim": image.ndim, "features": {OBJECT: np.zeros(0, int), POSITIVE: np.zeros(0, bool)}, **placed}
        boxes = self._viewer.add_shapes(
            name=BOXES, face_color="transparent", edge_color="yellow", edge_width=2, **shared
        )
        clicks = self._viewer.add_points(
            name=CLICKS, face_color="transparent", border_color=POSITIVE, border_color_cycle=["red", "lime"],
            border_width=0.3, size=max(image.extent.data[1][-2:].max() / 40, 3), **shared,
        )  # fmt: skip
        self.points.reset_choices()
        self.shapes.reset_choices()
        self.points.value, self.shapes.value = clicks, boxes
        self._say_for_new()
        clicks.mode, boxes.mode = "add", "add_rectangle"

    def _say_for_new(self) -> None:
        """What is clicked, drawn and painted next is of this object."""
        for layer in (self.points.value, self.shapes.value):
            if layer is not None and OBJECT in layer.features:
                layer.feature_defaults = {OBJECT: self.object.value, POSITIVE: self.kind.value == YES}
                if isinstance(layer, Points):
                    layer.current_border_color = "lime" if self.kind.value == YES else "red"
        if self._layer is not None:
            self._layer.selected_label = self.object.value

    def _image(self) -> Image:
        if self.image.value is None:
            raise VideoError("there is no Image layer; open a video, a stack or a folder of images first")
        return self.image.value

    def _held(self) -> tuple[int, ...]:
        """Where the viewer stands, along the image's leading axes."""
        image = self._image()
        return tuple(round(float(at)) for at in image.world_to_data(self._viewer.dims.point[-image.ndim :])[:-2])

    def _current_video(self) -> LayerVideo:
        return LayerVideo(self._image(), self.axis.value or 0, self._held())

    def _show(self, masks: MaskStack, video: LayerVideo) -> Labels:
        """The layer that shows the masks."""
        if self._layer is not None and self._layer in self._viewer.layers:
            if self._layer.data is masks:
                return self._layer
            self._layer.name = f"{MASKS} (earlier)"
        image = self._image()
        self._layer = self._viewer.add_labels(
            masks, name=MASKS, opacity=0.5, metadata={"sam2long": {"image": image.name, **saving.describe(video)}},
            **{name: getattr(image, name) for name in PLACING},
        )  # fmt: skip
        self._layer.selected_label = self.object.value
        return self._layer

    # ---- tracking -----------------------------------------------------------------------------------------------

    def track(self) -> None:
        """Track from the current frame, in a thread; prompts and layers are read now."""
        self._must_be_idle()
        video = self._current_video()
        tracker: Any = self._tracker
        fits = (
            tracker is not None
            and (tracker.video.layer_shape, tracker.video.axis) == (video.layer_shape, video.axis)
            and tracker.video.place(0) == video.place(0)
            and tracker.image is self._image()
            and self._chosen() == tracker.chosen
        )
        masks = tracker.masks if fits else self._masks_for(video)
        video = tracker.video if fits else video
        prompts = collect(self._image(), video, self.points.value, self.shapes.value, masks)
        if not prompts:
            raise PromptError("there is no prompt; click on an object, draw a box around it, or paint it")
        current = video.frame_at(self._held())
        asked = self.direction.value, current, self.first.value, self.last.value
        layer = self._show(masks, video)
        chosen = self._chosen()

        def work() -> Iterator[tuple[int, dict[int, np.ndarray]]]:
            nonlocal tracker
            if not fits:
                tracker = Tracker(self._predictor(chosen), video, masks)
                tracker.image, tracker.chosen = self._image(), chosen
            self._tracker = tracker
            yield from tracker.track(prompts, tracker.ways(prompts, *asked))

        def came(found: tuple[int, dict[int, np.ndarray]]) -> None:
            frame, by_id = found
            masks.put(video.place(frame), by_id)
            self.status.value = f"frame {frame}"
            if frame == video.frame_at(self._held()):
                layer.refresh()

        total = 1 + self.last.value - self.first.value
        self._run(work, came, "tracking", total)

    def _masks_for(self, video: LayerVideo) -> MaskStack:
        """Those that are shown, where they are of the same layer; their other volumes are kept."""
        shown = self._layer.data if self._layer is not None and self._layer in self._viewer.layers else None
        fits = isinstance(shown, MaskStack) and shown.shape == video.layer_shape
        return shown if fits and isinstance(shown, MaskStack) else MaskStack(video.layer_shape)

    def _chosen(self) -> tuple[str, str]:
        return self.model.value.strip() or "nano", self.checkpoint.value.strip()

    def _predictor(self, chosen: tuple[str, str]) -> Any:
        if self._model is None or self._model[0] != chosen:
            self._model = None
            self._model = chosen, load_model(chosen[0], chosen[1] or None, max_lag=LAG)
            for name, value in zip(("model", "checkpoint"), chosen, strict=True):
                self._remembered.setValue(name, value)
        return self._model[1]

    def _run(self, work: Callable[[], Iterator[Any]], came: Callable[[Any], None], what: str, total: int) -> None:
        """Do something long in napari's thread, with its bar in the activity dock."""

        def guarded() -> Generator[Any, None, str]:
            try:
                yield from work()
            except Sam2LongError as error:
                return str(error)
            except OSError as error:
                return sentence(error)
            return ""

        self._worker = create_worker(
            guarded, _progress={"total": total, "desc": f"SAM2Long: {what}"}, _start_thread=False,
            _connect={"yielded": came, "returned": self._ended, "aborted": self._ended, "errored": self._ended},
        )  # fmt: skip
        self.start.enabled, self.cancel.enabled = False, True
        self._worker.start()

    def _ended(self, said: Any = "") -> None:
        self._worker = None
        self.start.enabled, self.cancel.enabled = True, False
        if self._layer is not None:
            self._layer.refresh()
        if self._tracker is not None:
            self._tracker.look()
            self._show_why()
        if isinstance(said, str) and said:
            show_error(f"SAM2Long: {said}")

    def _must_be_idle(self) -> None:
        if self._worker is not None:
            raise PromptError("it is tracking; wait until it is done, or cancel it")

    def stop(self) -> None:
        """Stop after this frame; the frames done are kept."""
        if self._worker is not None:
            self._worker.quit()

    def undo_track(self) -> None:
        """Take the last track back."""
        self._must_be_idle()
        if self._tracker is None or not self._tracker.can_undo:
            raise PromptError("there is no track to undo")
        self._tracker.undo()
        if self._layer is not None:
            self._layer.refresh()
        self._show_why()

    # ---- where to look ------------------------------------------------------------------------------------------

    def go_to_next(self) -> None:
        """To the middle of the longest stretch that nobody has looked at; from there to the next one."""
        if self._tracker is None or not self._tracker.looks:
            show_info("SAM2Long: there is no frame that needs a look")
            return
        frames, axis = list(self._tracker.looks), self._tracker.video.axis
        here = self._held()[axis]
        frame = frames[(frames.index(here) + 1) % len(frames) if here in frames else 0]
        image = self._image()
        point = [0.0] * image.ndim
        point[axis] = frame
        offset = self._viewer.dims.ndim - image.ndim
        self._viewer.dims.set_point(offset + axis, image.data_to_world(point)[axis])

    def _show_why(self, _: Any = None) -> None:
        """Why the frame that is shown is worth a look, over the picture."""
        tracker = self._tracker
        looks = tracker.looks if tracker is not None else {}
        overlay = self._viewer.canvas.overlays.text
        if tracker is None or not looks or self.image.value is None:
            overlay.visible = False
            return
        frame = tracker.video.frame_at(self._held())
        overlay.visible = frame in looks
        if frame in looks:
            overlay.text = f"look here: {looks[frame]}"

    # ---- files --------------------------------------------------------------------------------------------------

    def save_run(self, folder: Path) -> None:
        """Masks and prompts, as a run folder."""
        self._must_be_idle()
        masks, video = self._tracked()
        prompts = collect(self._image(), video, self.points.value, self.shapes.value, masks)
        source = self._image().source.path or ""
        model, checkpoint = self._chosen()
        saving.save(folder, video, masks, prompts, str(source), {"model": model, "checkpoint": checkpoint or None})
        show_info(f"SAM2Long: saved to {folder}")

    def open_run(self, folder: Path) -> None:
        """Masks and prompts of a run folder, onto the image."""
        self._must_be_idle()
        video = self._current_video()
        masks = MaskStack(video.layer_shape)
        prompts = saving.read(folder, video, masks)
        self._tracker = None
        self.add_prompt_layers()
        self._show(masks, video)
        for (frame, obj_id), prompt in prompts.items():
            if prompt.mask is not None:
                masks.painted.add((video.place(frame), obj_id))
            for (x, y), label in zip(prompt.points, prompt.point_labels, strict=True):
                self.points.value.feature_defaults = {OBJECT: obj_id, POSITIVE: bool(label)}
                self.points.value.add((*video.place(frame), y - 0.5, x - 0.5))
            if prompt.box is not None:
                left, top, right, bottom = (side - 0.5 for side in prompt.box)
                self.shapes.value.feature_defaults = {OBJECT: obj_id, POSITIVE: True}
                corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
                self.shapes.value.add_rectangles([[(*video.place(frame), *corner) for corner in corners]])
        self._say_for_new()

    def export_run(self, folder: Path, to: str) -> None:
        """The run that was saved in `folder`, in another format; in a thread."""
        self.save_run(folder)

        def work() -> Iterator[Any]:
            yield export_run(folder, to, overwrite=True)

        def came(report: Any) -> None:
            show_info(f"SAM2Long: wrote {report.folder}. {' '.join(report.lost)}")

        self._run(work, came, "exporting", 1)

    def _tracked(self) -> tuple[MaskStack, LayerVideo]:
        if self._layer is None or not isinstance(self._layer.data, MaskStack):
            raise PromptError("there are no masks yet; track at least one frame first")
        video = self._tracker.video if self._tracker is not None else self._current_video()
        return self._layer.data, video

    def _ask(self, title: str, act: Callable[[Path], None]) -> None:
        if folder := QFileDialog.getExistingDirectory(self.native, title):
            act(Path(folder))

    def _save_as(self) -> None:
        self._ask("A folder for the run", self.save_run)

    def _open(self) -> None:
        self._ask("A run folder", self.open_run)

    def _export_to(self) -> None:
        self._ask("A folder for the run and its export", lambda folder: self.export_run(folder, self.format.value))

    def _in_words(self, act: Callable[[], None]) -> Callable[[], None]:
        """A button's act; what it refuses is a sentence."""

        def pressed() -> None:
            try:
                act()
            except Sam2LongError as error:
                show_warning(f"SAM2Long: {error}")
            except OSError as error:
                show_warning(f"SAM2Long: {sentence(error)}")

        return pressed

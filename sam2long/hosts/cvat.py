"""CVAT: a tracker and a click segmenter for the auto-annotation interface of CVAT's SDK.

    cvat-cli function create-native "SAM2Long" --function-module sam2long.hosts.cvat -p model=str:sam2.1-large
    cvat-cli function run-agent ID --function-module sam2long.hosts.cvat -p model=str:sam2.1-large

CVAT measures from the corner of a pixel: the first one reaches from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2long.errors import ConfigError, DataError, PromptError, Sam2LongError
from sam2long.export.polygons import box, edges
from sam2long.extras import require
from sam2long.hosts.boxes import inside
from sam2long.hosts.model import load_model
from sam2long.imports.areas import from_polygons
from sam2long.imports.prompt import ObjectPrompt
from sam2long.tracking.prompts import require_sense
from sam2long.video.depth import grey_to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

    from sam2long.tracking.frames import EncodedFrame
    from sam2long.tracking.inference_state import InferenceState

OBJECT = 1  # a state tracks one shape: CVAT tracks each by itself
KINDS = ("tracking", "interaction")
TOLERANCE = 0.5  # pixels that a polygon may leave the mask's edge by, so that its corners are few enough to drag


def create(kind: str = "tracking", **options: Any) -> Tracking | Interaction:
    """What `cvat-cli function` calls; options are given by -p NAME=TYPE:VALUE.

    Args:
        kind: "tracking", or "interaction" for clicks and boxes on one frame.
        **options: model, checkpoint, device, dtype, as those of `sam2long track`, and fields of Sam2LongConfig.
    Raises:
        SystemExit: with a sentence, when there is no such model or option: a function that cannot run is not to be
            registered.
    """
    try:
        if kind not in KINDS:
            raise ConfigError(f"the kind is {kind!r}; expected {' or '.join(KINDS)}, e.g. -p kind=str:interaction")
        return (Tracking if kind == "tracking" else Interaction)(**options)
    except (Sam2LongError, TypeError) as error:
        raise SystemExit(f"sam2long: {error}") from None


class _Function:
    """What both have: a model that decides at once, and pictures that are encoded once.

    Args:
        **options: as `create`.
    Raises:
        ModelError, ConfigError: no such model, weights, device or setting.
    """

    def __init__(self, **options: Any) -> None:
        self._sdk = require("cvat_sdk.auto_annotation", "cvat", "a CVAT function")
        require("cvat_sdk.masks", "cvat", "a CVAT function")
        self._predictor = load_model(**options, emit="online")

    def preprocess_image(self, context: Any, image: Image) -> EncodedFrame:
        """The image encoder's part, once for all shapes on a frame."""
        with self._in_words():
            return self._predictor.encode_frame(_rgb(image))

    def _prompted(self, frame: EncodedFrame, prompt: ObjectPrompt) -> tuple[InferenceState, np.ndarray]:
        """A state of its own for one shape, and the shape's mask [H, W] bool."""
        state = self._predictor.init_stream(frame)
        height, width = state["video_height"], state["video_width"]
        require_sense(prompt, height=height, width=width, image_size=self._predictor.image_size)
        return state, _mask(prompt.give(self._predictor, state, 0))

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """CVAT shows its users what a BadFunctionError says, and hides what other exceptions do."""
        try:
            yield
        except Sam2LongError as error:
            raise self._sdk.BadFunctionError(str(error)) from error


class Tracking(_Function):
    """A `TrackingFunction`: masks, polygons and rectangles, each through all frames after its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spec = self._sdk.TrackingFunctionSpec(supported_shape_types=list(_READ))

    def init_tracking_state(self, context: Any, pp_image: EncodedFrame, shape: Any) -> InferenceState:
        with self._in_words():
            prompt = _READ[shape.type](shape.points, pp_image.height, pp_image.width)
            return self._prompted(pp_image, prompt)[0]

    def track(self, context: Any, pp_image: EncodedFrame, state: InferenceState) -> Any:
        """A shape of the kind that was given. None while the object is away; on the next frame it is looked for."""
        with self._in_words():
            mask = _mask(self._predictor.track(state, pp_image)[-1])
        kind = context.original_shape_type
        return self._sdk.TrackableShape(type=kind, points=_WRITE[kind](mask)) if mask.any() else None


class Interaction(_Function):
    """An `InteractionFunction`: clicks, a box, or both become a mask."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spec = self._sdk.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def detect(self, context: Any, pp_image: EncodedFrame, prompts: Any) -> list[Any]:
        with self._in_words():
            positive, negative, box = tuple(prompts.pos_points), tuple(prompts.neg_points), prompts.bounding_box
            if not positive and not box:
                raise PromptError("no prompt says what the object is; click on it, or draw a box around it")
            prompt = ObjectPrompt(
                frame=0, obj_id=OBJECT, points=positive + negative,
                point_labels=(1,) * len(positive) + (0,) * len(negative),
                box=inside((*box[0], *box[1]), pp_image.height, pp_image.width) if box else None,
            )  # fmt: skip
            mask = self._prompted(pp_image, prompt)[1]
        return [self._sdk.InteractionResultShape(type="mask", points=_write_mask(mask))] if mask.any() else []


def _rgb(image: Image) -> np.ndarray:
    """[H, W, 3] uint8; of more than 8 bits, the lowest value becomes 0 and the highest 255."""
    if image.mode[0] not in "IF":
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    return grey_to_rgb(((values - low) * (255 / (high - low or 1))).astype(np.uint8))


def _mask(answer: Any) -> np.ndarray:
    """[H, W] bool, out of what the predictor says."""
    return (answer[2][0, 0] > 0).cpu().numpy()


# ---- shapes into prompts, and masks into shapes ---------------------------------------------------------------------


def _read_rectangle(points: Sequence[float], height: int, width: int) -> ObjectPrompt:
    if len(points) != 4:
        raise PromptError(f"a rectangle has {len(points)} numbers; expected x1, y1, x2, y2")
    return ObjectPrompt(frame=0, obj_id=OBJECT, box=inside(points, height, width))


def _read_polygon(points: Sequence[float], height: int, width: int) -> ObjectPrompt:
    return ObjectPrompt(frame=0, obj_id=OBJECT, mask=from_polygons([list(points)], height, width, "the shape"))


def _read_mask(points: Sequence[float], height: int, width: int) -> ObjectPrompt:
    from cvat_sdk.masks import decode_mask

    try:
        return ObjectPrompt(frame=0, obj_id=OBJECT, mask=decode_mask(points, image_width=width, image_height=height))
    except ValueError as error:
        raise DataError(f"the mask cannot be read ({error}); draw it anew") from None


def _write_rectangle(mask: np.ndarray) -> list[float]:
    left, top, right, bottom = box(mask)
    return [left, top, right + 1, bottom + 1]


def _write_polygon(mask: np.ndarray) -> list[float]:
    """The largest part: a polygon of CVAT's has one."""
    return edges(mask, TOLERANCE)[0].ravel().tolist()


def _write_mask(mask: np.ndarray) -> list[float]:
    from cvat_sdk.masks import encode_mask

    return encode_mask(mask)


_READ: dict[str, Callable[[Sequence[float], int, int], ObjectPrompt]] = {
    "mask": _read_mask, "polygon": _read_polygon, "rectangle": _read_rectangle,
}  # fmt: skip
_WRITE: dict[str, Callable[[np.ndarray], list[float]]] = {
    "mask": _write_mask, "polygon": _write_polygon, "rectangle": _write_rectangle,
}  # fmt: skip

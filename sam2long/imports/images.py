"""Mask images: what is opaque, black and white, an object id in every pixel, or a colour for every object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import DataError, PromptError
from sam2long.imports.prompt import ObjectPrompt

if TYPE_CHECKING:
    import numpy as np

WHITE_FROM = 128  # a grey image without brighter pixels holds object ids, not black and white
VOID, VOID_16 = 255, 65535  # beside ids: "not to be judged", in VOC, DAVIS, VOST and their 16-bit kin
VOID_COLOUR = 0xE0E0C0  # the colour of id 255 in the palette of VOC and DAVIS
MOST_OBJECTS = 64
FEW_PIXELS = 10  # an object of fewer is a crumb; many crumbs are no objects
MANY = 8

SAVE_AS = "save it in black and white, or with one flat colour per object and hard edges"


@dataclass(frozen=True, slots=True, eq=False)
class MaskImage:
    """What a mask image says.

    Attributes:
        labels: [H, W] integers; 0 where there is no object.
        coloured: the other values are colours, 0xrrggbb, and not ids.
    """

    labels: np.ndarray
    coloured: bool = False

    def objects(self) -> list[tuple[int, np.ndarray]]:
        """(id or colour, [H, W] bool); ids rising, colours as they come, from the top left and row by row."""
        import numpy as np

        values, first = np.unique(self.labels, return_index=True)
        order = np.argsort(first) if self.coloured else range(len(values))
        return [(int(values[at]), self.labels == values[at]) for at in order if values[at]]


def masks_from_image(
    path: Path, frame: int, label: str = "", numbers: dict[int, int] | None = None
) -> list[ObjectPrompt]:
    """One prompt per object of a mask image.

    Args:
        path: of the image; see `read_mask`.
        frame: that it is about. label: what the object is called, where there is only one.
        numbers: colour -> object id, of the images read before; the colours of this one are added. Colours are
            numbered from 1 as they come, from the top left and row by row.
    Raises:
        PromptError: no object in it. DataError: as `read_mask`.
    """
    found = prompts_from_image(path, frame, {} if numbers is None else numbers)
    if not found:
        raise PromptError(
            f"{path} shows no object: it is all black, clear or void; mark the object in white, or each object with "
            "its own palette colour"
        )
    if len(found) == 1:
        found[0] = found[0].named(label)
    return found


def prompts_from_image(path: Path, frame: int, numbers: dict[int, int]) -> list[ObjectPrompt]:
    """As `masks_from_image`, but an image without objects is an empty list."""
    image = read_mask(path)
    if not image.coloured:
        return [ObjectPrompt(frame=frame, obj_id=obj_id, mask=mask) for obj_id, mask in image.objects()]
    return [
        ObjectPrompt(
            frame=frame, obj_id=numbers.setdefault(colour, len(numbers) + 1), colour=f"#{colour:06x}", mask=mask
        )
        for colour, mask in image.objects()
    ]


def read_mask(path: Path) -> MaskImage:
    """Read a mask image file; see `labels_of`.

    Raises:
        DataError: not an image, or one that says nothing clear about objects.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return labels_of(image, f"the mask {path}")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        reason = (getattr(error, "strerror", None) or "not an image") if isinstance(error, OSError) else str(error)
        raise DataError(f"the mask {path} cannot be read ({reason}); expected a PNG") from None


def labels_of(image: Any, what: str) -> MaskImage:
    """The objects of a picture.

    A palette, 16 bits, or grey values below 128 are object ids: 0 for none, and 255 beside other ids is void, as is
    65535 in 16 bits. Any other picture with clear parts is a cut-out: what is opaque is object 1. Other grey is
    black and white, brighter than half for object 1; and colours are an object each, on black.

    Args:
        image: of PIL. what: the picture, for messages.
    Raises:
        DataError: more than 64 objects, smoothed edges between them, or grey that is neither ids nor black and white.
    """
    import numpy as np

    opaque = None if image.mode.startswith("I") else _opaque(image, what)
    if image.mode in ("P", "PA"):
        labels = _with_black_as_none(np.array(image.getchannel(0)), image)
        if opaque is None:
            return MaskImage(_checked(_ids(labels, VOID), what))
        labels = np.where(opaque, labels, 0)
        try:  # ids on a clear ground; else a cut-out picture that was saved with few colours
            return MaskImage(_checked(_ids(labels, VOID), what))
        except DataError:
            pass
    if opaque is not None:
        return MaskImage(opaque.astype(np.uint8))
    if image.mode.startswith("I"):  # 16 and 32 bits hold ids, not brightness
        return MaskImage(_checked(_ids(np.array(image).astype(np.int64), VOID_16), what))
    if image.mode not in ("1", "L", "LA", "F"):
        rgb = np.array(image.convert("RGB")).astype(np.int32)
        if (rgb != rgb[:, :, :1]).any():
            colours = rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2]
            return MaskImage(_checked(_without(VOID_COLOUR, colours), what), coloured=True)
    return MaskImage(_grey_labels(np.array(image.convert("L")), what))


def _opaque(image: Any, what: str) -> np.ndarray | None:
    """Where a cut-out shows something; None for a picture that is opaque to the same degree everywhere."""
    import numpy as np

    if not image.has_transparency_data:
        return None
    alpha = np.array(image.convert("RGBA").getchannel("A"))
    if not alpha.any():
        raise DataError(f"{what} is clear everywhere; leave the object opaque, or save it in black and white")
    if alpha.min() == alpha.max():
        return None
    return alpha > alpha.max() / 2


def _with_black_as_none(labels: np.ndarray, image: Any) -> np.ndarray:
    """Palettes that a paint program has made may have black elsewhere than at 0."""
    import numpy as np

    entries = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    black = np.flatnonzero(~entries.any(axis=1))
    if (labels == 0).any() or len(black) == len(entries):
        return labels
    return np.where(np.isin(labels, black), 0, labels)


def _ids(labels: np.ndarray, void: int) -> np.ndarray:
    """Ids without the void beside them. Where there is no other value, it is white: object 1."""
    import numpy as np

    kinds = np.unique(labels[labels > 0])
    if len(kinds) == 1 and kinds[0] in (VOID, void):
        return (labels > 0).astype(np.uint8)
    return _without(void, np.where(labels < 0, 0, labels))


def _without(void: int, labels: np.ndarray) -> np.ndarray:
    import numpy as np

    others = (labels > 0) & (labels != void)
    return np.where(others, labels, 0) if others.any() else labels


def _grey_labels(grey: np.ndarray, what: str) -> np.ndarray:
    """Black and white, or ids; told apart by what lies between black and white: edges, or areas of one value."""
    import numpy as np

    values = [int(value) for value in np.unique(grey) if value > 0]
    if not values or values[-1] < WHITE_FROM:
        return _checked(grey, what)
    between = [value for value in values if value != VOID]
    in_order = between == list(range(1, len(between) + 1))
    middle = (grey > 0) & (grey != VOID)
    inside = _inside(grey)
    areas = (inside & middle).sum() * 2 > middle.sum()
    seams = not (inside & (grey == VOID)).any()
    if between and between[-1] < WHITE_FROM and (in_order or (areas and seams)):
        return _checked(_ids(grey, VOID), what)
    if len(values) > 1 and (values[-1] < VOID or (areas and len(between) <= MOST_OBJECTS)):
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise DataError(
            f"{what} has grey values {shown}: neither black and white nor object ids below {WHITE_FROM}; {SAVE_AS}"
        )
    return (grey >= WHITE_FROM).astype(np.uint8)


def _checked(labels: np.ndarray, what: str) -> np.ndarray:
    """Labels that may be objects: not too many, and not the mixed colours of smoothed edges."""
    import numpy as np

    ids, areas = np.unique(labels[labels != 0], return_counts=True)
    crumbs = int((areas < FEW_PIXELS).sum())
    edges = _edges(labels, ids) if len(ids) <= MOST_OBJECTS else 0
    if len(ids) > MOST_OBJECTS or (len(ids) >= MANY and crumbs * 2 > len(ids)) or (edges > 2 and edges * 2 > len(ids)):
        why = f"{crumbs} of them of fewer than {FEW_PIXELS} pixels" if crumbs else "more than objects on a frame"
        if edges > 2:
            why = f"{edges} of them only thin edges between others"
        raise DataError(
            f"{what} has {len(ids)} different values or colours, {why}: smoothed, shrunk, or not a mask; at most "
            f"{MOST_OBJECTS} objects are taken. {SAVE_AS[0].upper()}{SAVE_AS[1:]}"
        )
    return labels


def _edges(labels: np.ndarray, ids: np.ndarray) -> int:
    """How many of the ids are but seams: without any square of 3 x 3 pixels, and mostly beside other objects."""
    import numpy as np

    inside = set(np.unique(labels[_inside(labels)]).tolist())
    thin = [value for value in ids.tolist() if value not in inside]
    if len(thin) < 3:
        return 0
    padded = np.pad(labels, 1, mode="edge")
    height, width = labels.shape
    beside = np.zeros(labels.shape, bool)
    for y in range(3):
        for x in range(3):
            near = padded[y : y + height, x : x + width]
            beside |= (near != 0) & (near != labels)
    return sum(beside[labels == value].mean() > 0.5 for value in thin)


def _inside(labels: np.ndarray) -> np.ndarray:
    """[H, W] bool: the pixels whose eight neighbours have their value."""
    import numpy as np

    same = np.ones(labels.shape, bool)
    padded = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    height, width = labels.shape
    for y in range(3):
        for x in range(3):
            same &= padded[y : y + height, x : x + width] == labels
    return same

"""The masks of all objects as an array that a Labels layer shows and paints, in the memory of their run lengths."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from sam2long.export.masks import decode_mask, encode_mask

Place = tuple[int, ...]  # along the leading axes
DECODED = 8  # pictures kept as they are shown


class MaskStack:
    """Labels [..., H, W] int32: 0, or the id of an object. Objects may overlap; the higher id is shown.

    What is painted (anything that is set through an index) is kept apart: it is the user's word.

    Args:
        shape: of the whole array.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.ndim = tuple(shape), len(shape)
        self.size = int(np.prod(shape))
        self.painted: set[tuple[Place, int]] = set()
        self._masks: dict[Place, dict[int, Mapping[str, Any]]] = {}
        self._shown: OrderedDict[Place, np.ndarray] = OrderedDict()

    # ---- objects ------------------------------------------------------------------------------------------------

    def put(self, place: Place, masks: Mapping[int, np.ndarray]) -> None:
        """Add or replace masks [H, W] bool of one picture."""
        here = self._masks.setdefault(place, {})
        self._masks[place] = here | {obj_id: encode_mask(mask) for obj_id, mask in masks.items()}
        self._shown.pop(place, None)

    def mask(self, place: Place, obj_id: int) -> np.ndarray | None:
        """[H, W] bool; None where nothing is known."""
        rle = self._masks.get(place, {}).get(obj_id)
        return None if rle is None else decode_mask(rle)

    def rles(self) -> Iterator[tuple[Place, Mapping[int, Mapping[str, Any]]]]:
        """Each picture's place and COCO run lengths, in order."""
        yield from sorted(self._masks.items())

    def known(self, place: Place) -> bool:
        return place in self._masks

    def snapshot(self) -> Any:
        """For `restore`; shares everything."""
        return dict(self._masks), set(self.painted)

    def restore(self, snapshot: Any) -> None:
        masks, painted = snapshot
        self._masks, self.painted = dict(masks), set(painted)
        self._shown.clear()

    # ---- what napari does with an array -------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[(slice(None),) * self.ndim].astype(dtype or self.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        leading, rest = self._split(key)
        if leading is None:
            values = np.zeros(np.broadcast_shapes(*(index.shape for index in rest)), self.dtype)
            for place, chosen, pixels in self._pixels(rest):
                values[chosen] = self._picture(place)[pixels]
            return values
        pictures = np.stack([self._picture(place)[rest] for place in product(*leading)])
        kept = [len(axis) for axis, index in zip(leading, self._full(key), strict=False) if isinstance(index, slice)]
        return pictures.reshape((*kept, *pictures.shape[1:]))

    def __setitem__(self, key: Any, value: Any) -> None:
        leading, rest = self._split(key)
        if leading is None:
            values = np.broadcast_to(value, np.broadcast_shapes(*(index.shape for index in rest)))
            for place, chosen, pixels in self._pixels(rest):
                self._paint(place, pixels, values[chosen])
            return
        places = list(product(*leading))
        shape = self[key].shape
        part = self._picture(places[0])[rest].shape
        for place, values in zip(places, np.broadcast_to(value, shape).reshape((-1, *part)), strict=True):
            self._paint(place, rest, values)

    def _paint(self, place: Place, pixels: Any, values: np.ndarray) -> None:
        before = self._picture(place)
        after = before.copy()
        after[pixels] = values
        changed = before != after
        known = self._masks.get(place, {})
        masks = {}
        for obj_id in {*known, *map(int, np.unique(after[changed]))} - {0}:
            mask = decode_mask(known[obj_id]) if obj_id in known else np.zeros(self.shape[-2:], bool)
            # What would be shown above the new label goes; what it covers stays.
            painted = (mask & ~(changed & (after < obj_id))) | (changed & (after == obj_id))
            if not np.array_equal(painted, mask):
                masks[obj_id] = painted
        self.put(place, masks)
        self.painted |= {(place, obj_id) for obj_id in masks}

    def _picture(self, place: Place) -> np.ndarray:
        """[H, W] as it is shown; not to be changed."""
        if place not in self._shown:
            picture = np.zeros(self.shape[-2:], self.dtype)
            for obj_id, rle in sorted(self._masks.get(place, {}).items()):
                picture[decode_mask(rle)] = obj_id
            self._shown[place] = picture
            while len(self._shown) > DECODED:
                self._shown.popitem(last=False)
        return self._shown[place]

    def _full(self, key: Any) -> tuple[Any, ...]:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [k for k in key if not isinstance(k, np.ndarray)]:
            at = key.index(Ellipsis)
            key = (*key[:at], *(slice(None),) * (self.ndim - len(key) + 1), *key[at + 1 :])
        return (*key, *(slice(None),) * (self.ndim - len(key)))

    def _split(self, key: Any) -> tuple[list[Sequence[int]] | None, Any]:
        """The leading indices of each axis, and the index into a picture; or None, and an array of indices per axis."""
        full = self._full(key)
        if any(isinstance(index, (np.ndarray, list)) for index in full):
            if any(isinstance(index, slice) for index in full):
                raise IndexError("masks are indexed by slices and numbers, or by an array for every axis")
            return None, [np.asarray(index) for index in full]
        leading: list[Sequence[int]] = [
            range(*index.indices(side)) if isinstance(index, slice) else [range(side)[int(index)]]
            for index, side in zip(full[:-2], self.shape[:-2], strict=True)
        ]
        return leading, tuple(full[-2:])

    def _pixels(self, indices: list[np.ndarray]) -> Iterator[tuple[Place, np.ndarray, tuple[np.ndarray, ...]]]:
        """For each picture that is meant: its place, which of the indices are of it, and their rows and columns."""
        *leading, rows, columns = np.broadcast_arrays(*indices)
        for place in sorted({tuple(map(int, each)) for each in zip(*(axis.ravel() for axis in leading), strict=True)}):
            chosen = np.logical_and.reduce([axis == index for axis, index in zip(leading, place, strict=True)])
            yield place, chosen, (rows[chosen], columns[chosen])

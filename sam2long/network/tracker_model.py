"""What tracking asks of a network: five steps, whatever package the network comes from.

`Sam2Model` gives them for sam2's package, `TransformersModel` for transformers'. What is abstract here is what a back
end must bring; docs/backends.md says it in words.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.method.memory import BankRules, Reading
from sam2long.method.tree import Verdict
from sam2long.network.devices import read_out, tensor_on
from sam2long.network.features import FrameFeatures, ImageEncoder
from sam2long.network.memory_bank import MemoryReader

ROW_BUDGET = 2 << 30  # bytes
NO_OBJ_SCORE = -1024.0  # the logit of every pixel of an object that is not there
T = TypeVar("T")
Points = tuple[Tensor, Tensor]  # coordinates [1, n, 2] in model pixels, labels [1, n] int32


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """K mask candidates for each of R rows; U of them are different, and computed.

    Tensors stay on the device; the verdicts are plain numbers.
    """

    masks: Tensor  # [U, K, 4h, 4w] float32 logits; constant NO_OBJ_SCORE where the object is absent
    tokens: Tensor  # [U, K or 1, D] decoder tokens that object pointers are made of
    object_logits: Tensor  # [U, 1]
    places: list[int]  # of each row, where it stands in the tensors
    verdicts: list[Verdict]  # of each row
    kept_tokens: list[Tensor | None]  # of each row's newest memory, [layers, n], when memories are read sparsely

    def at(self, kept: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Indices into the tensors of (row, k) pairs, on the device."""
        return tensor_on(self.masks.device, [(self.places[row], k) for row, k in kept]).unbind(1)

    def tokens_of(self, rows: Tensor, ks: Tensor) -> Tensor:
        """[U, D] tokens of candidates, by what `at` gave; all of a row may share one."""
        return self.tokens[rows, ks] if self.tokens.shape[1] > 1 else self.tokens[rows, 0]


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """One kept candidate, ready to become a memory."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    mask_features: Tensor  # [1, C, h, w], or [1, C, n] where memories are compressed into n tokens
    object_ptr: Tensor  # [1, D]


@dataclass(frozen=True, slots=True, eq=False)
class PromptOutput:
    """What the model makes of a prompt."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    object_ptr: Tensor  # [1, D]
    object_logit: Tensor  # [1, 1]


class TrackerModel(ABC):
    """A network seen as five steps: `encoder`, propose, remember, prompt, remember_prompt.

    Args:
        model: in eval mode, with `device`, `image_size`, `hidden_dim` and `mem_dim`. Used as it is, never changed.
        encoder: image features of frames.
        reader: memories as the network attends to them.
        dtype: float32, or what autocast computes in.
        row_budget: bytes that one batch of rows may take in memory attention; more rows than fit are split.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of the pixels that the encoder was trained on, in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: str = "bicubic"  # how frames are brought to the model's size: "bicubic" or "bilinear"

    def __init__(
        self, model: nn.Module, encoder: ImageEncoder, reader: MemoryReader, dtype: torch.dtype, row_budget: int
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.reader = reader
        self.dtype = dtype
        self.row_budget = row_budget
        self.while_waiting: Callable[[], None] | None = None  # gives a GPU something to do while the host decides
        self.batch_of: Callable[[int], int] = int  # rows that a batch of so many is filled up to, the last one repeated
        self.rows_read = 0  # how many rows went through memory attention and decoder

    # ---- what a back end brings ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def mask_size(self) -> int:
        """Side of the low-resolution masks, which are what the prompt encoder takes as a mask prompt."""

    @property
    @abstractmethod
    def absent_alike(self) -> bool:
        """Whether the same is remembered of every object that is not there."""

    @property
    @abstractmethod
    def telling_weights(self) -> Tensor:
        """A parameter that tells weights apart: trained ones differ in every one."""

    @abstractmethod
    def rules(
        self, *, iou_threshold: float, object_aware: bool, max_prompted: int, num_frames: int | None
    ) -> BankRules:
        """The sizes of this model's bank. `num_frames`: length of the video, None for an endless stream."""

    @abstractmethod
    def read_as(self, config: Sam2LongConfig) -> None:
        """Take over how another session read its memories."""

    @abstractmethod
    def _decode(self, features: FrameFeatures, conditioned: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Masks [R, K, 4h, 4w], IoUs [R, K], tokens [R, K or 1, D], object logits [R, 1]."""

    @abstractmethod
    def _remember_batch(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        """Pointers and spatial memories of (row, k) candidates."""

    @abstractmethod
    def prompt(
        self,
        features: FrameFeatures,
        *,
        points: Points | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
        reading: Reading | None = None,
        num_pointers: int = 1,
    ) -> PromptOutput:
        """The model's own prompt handling on one frame for one object.

        Args:
            features: of the frame.
            points: clicks and box corners in model pixels; or
            mask: [1, 1, S, S] float 0/1.
            previous: [1, 1, 4h, 4w] mask logits that the new clicks refine.
            reading: the object's memories, when the frame has been tracked before; a mask needs none.
            num_pointers: M, as for `propose`.
        """

    @abstractmethod
    def remember_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None = None) -> Tensor:
        """The spatial memory of a prompted frame, as `Remembered.mask_features`.

        Args:
            features: of the frame. output: of `prompt`.
            mask: bool [S, S]: what was given there, when it was a mask.
        """

    # ---- what all have ---------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def image_size(self) -> int:
        """S, the side of the model's input."""
        return int(self.model.image_size)

    @property
    def hidden_dim(self) -> int:
        """D, the width of image features and object pointers."""
        return self.model.hidden_dim

    @property
    def mem_dim(self) -> int:
        """C, the width of spatial memories."""
        return self.model.mem_dim

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that calls the network runs in here: no autograd, our precision, whatever the caller has set."""
        kind = self.device.type
        mixed = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(kind, dtype=self.dtype if mixed else None, enabled=mixed):
            yield

    def absent(self) -> Tensor:
        """The mask of an object that is not there, [1, 1, 4h, 4w] float32 logits."""
        return torch.full((1, 1, self.mask_size, self.mask_size), NO_OBJ_SCORE, device=self.device)

    # ---- propose ---------------------------------------------------------------------------------------------

    def propose(self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int) -> Proposals:
        """K candidates for every reading, in batches; the numbers come to the CPU in one transfer.

        Readings that are the same are computed once: pathways whose pasts differ in nothing that is still read, as
        after an absence.

        Args:
            features: of the frame.
            readings: R memory readings; row r of the result belongs to readings[r].
            num_pointers: M, which divides the pointers' temporal positions.
        """
        keys = [reading.key for reading in readings]
        distinct = dict(zip(keys, readings, strict=True))
        place_of = {key: place for place, key in enumerate(distinct)}
        places, readings = [place_of[key] for key in keys], list(distinct.values())
        self.rows_read += len(readings)
        conditioned, kept_tokens = self._conditioned(features, readings, num_pointers)
        masks, ious, tokens, logits = self._decoded(features, conditioned)
        numbers = read_out(torch.cat([ious.float(), logits.float()], dim=1), self.while_waiting)  # the one host sync
        verdicts = []
        for *row_ious, logit in numbers:
            if not all(map(math.isfinite, (*row_ious, logit))):
                raise StateError(
                    "the mask decoder returned a number that is not finite; "
                    'try dtype="float32", and check that the weights belong to this config'
                )
            verdicts.append(Verdict(tuple(row_ious), logit))
        return Proposals(
            masks, tokens, logits, places,
            verdicts=[verdicts[place] for place in places],
            kept_tokens=[kept_tokens[place] for place in places],
        )  # fmt: skip

    def _batches(self, readings: Sequence[Reading]) -> list[list[int]]:
        """Row numbers grouped by bank shape, each group small enough for the row budget."""
        groups: dict[tuple, list[int]] = defaultdict(list)
        for row, reading in enumerate(readings):
            groups[reading.layout].append(row)
        batches = []
        for rows in groups.values():
            size = self._rows_per_batch(readings[rows[0]])
            batches += [rows[start : start + size] for start in range(0, len(rows), size)]
        return batches

    def _rows_per_batch(self, reading: Reading) -> int:
        # Keys, values, their RoPE copies and the tokens themselves, in float32.
        token_bytes = 4 * (6 * self.hidden_dim + 2 * self.mem_dim)
        return max(1, self.row_budget // ((self.reader.tokens(reading) + self.reader.queries) * token_bytes))

    def _conditioned(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[Tensor, list[Tensor | None]]:
        """`condition` for readings of any layout, and what to keep of each row's newest memory."""
        kept_tokens: list[Tensor | None] = [None] * len(readings)
        batches, parts = self._batches(readings), []
        for batch in batches:
            rows = self._filled_up([readings[row] for row in batch])
            conditioned, mattered = self.condition(features, rows, num_pointers)
            parts.append(conditioned[: len(batch)])
            if mattered is not None:
                for row, tokens in zip(batch, mattered[: len(batch)], strict=True):
                    kept_tokens[row] = tokens.clone()  # a view would keep the whole batch alive
        if len(parts) == 1:
            return parts[0], kept_tokens
        order = [row for batch in batches for row in batch]
        back = tensor_on(self.device, sorted(range(len(order)), key=order.__getitem__))
        return torch.cat(parts)[back], kept_tokens

    def _decoded(self, features: FrameFeatures, conditioned: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`_decode` for any number of rows, whatever they have read."""
        # What the decoder's transformer and its enlarging hold of a row, in float32.
        size = max(1, self.row_budget // (4 * 20 * self.reader.queries * self.hidden_dim))
        parts = []
        for part in conditioned.split(size):
            filling = self.batch_of(len(part)) - len(part)
            filled = torch.cat([part, part[-1:].expand(filling, -1, -1, -1)]) if filling else part
            parts.append([each[: len(part)] for each in self._decode(features, filled)])
        return tuple(parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True)))

    def _filled_up(self, rows: Sequence[T]) -> list[T]:
        """A batch of rows with the last one repeated, as `batch_of` says."""
        return [*rows, *[rows[-1]] * (self.batch_of(len(rows)) - len(rows))]

    def condition(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[Tensor, Tensor | None]:
        """Image features that have read their memories, [R, D, h, w]; and which tokens of the newest one mattered.

        Readings must have one layout.
        """
        bank = self.reader.assemble(readings, num_pointers)
        return self.reader.read(features, bank)

    # ---- remember --------------------------------------------------------------------------------------------

    def remember(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        """Pointers and spatial memories of the kept candidates, in batches. kept: (row, k) pairs.

        Candidates that are the same get the same tensors: that is how `propose` finds equal readings.
        """
        first: dict[Any, tuple[int, int]] = {}
        same = [first.setdefault(self._content(proposals, row, k), (row, k)) for row, k in kept]
        size, unique, entries = (
            max(1, self.row_budget // self._bytes_per_candidate(proposals)),
            list(first.values()),
            {},
        )
        for start in range(0, len(unique), size):
            part = unique[start : start + size]
            filled = self._filled_up(part)
            entries |= zip(filled, self._remember_batch(features, proposals, filled), strict=True)
        return [entries[candidate] for candidate in same]

    def _content(self, proposals: Proposals, row: int, k: int) -> Any:
        """Equal for candidates of which the same is remembered: those of one row and k, and all that are absent."""
        if self.absent_alike and proposals.verdicts[row].object_logit <= 0:
            return None  # the mask is a constant, and the pointer is the one for "not there"
        return proposals.places[row], k

    def _bytes_per_candidate(self, proposals: Proposals) -> int:
        # All K masks at the model's size, and the mask downsampler's first maps, which are about as large.
        return 4 * 3 * proposals.masks.shape[1] * self.image_size**2

    def _enlarge(self, masks: Tensor) -> Tensor:
        """Low-resolution logits at the size of the model's input."""
        side = self.image_size
        return F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)

    def _remembered(self, masks: Tensor, spatial: Tensor, pointers: Tensor) -> list[Remembered]:
        """U rows of a batch as U memories."""
        # Clones: a view would keep the whole batch alive for as long as one of its memories lives.
        own = (lambda tensor: tensor.clone()) if len(masks) > 1 else (lambda tensor: tensor)
        return [
            Remembered(own(masks[i : i + 1]), own(spatial[i : i + 1]), own(pointers[i : i + 1]))
            for i in range(len(masks))
        ]

"""A network for any number of rows: equal ones are computed once, all go in batches that fit, and one transfer of
numbers to the host serves them all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from sam2long.errors import ConfigError, StateError
from sam2long.method.memory import Reading
from sam2long.method.tree import Verdict
from sam2long.network import bank
from sam2long.network.devices import Outgoing
from sam2long.network.masks import boxes
from sam2long.network.protocol import (
    NO_OBJ_SCORE,
    Decoded,
    FrameFeatures,
    Network,
    Points,
    PromptOutput,
    Proposals,
    Remembered,
)

ROW_BUDGET = 2 << 30  # bytes
PIXELS_PER_PASS, FRAMES_PER_PASS = 2 * 256**2, 8  # small frames are encoded together, up to either
T = TypeVar("T")


class Batched:
    """What tracking calls: encode, propose, remember, prompt, remember_prompt.

    Args:
        network: the steps; never changed.
        dtype: float32, or what autocast computes in.
        row_budget: bytes that one batch of rows may take in memory attention; more rows than fit are split.
        frames_per_pass: how many frames of a stored video to encode at a time, whether or not that changes the last
            bits; None: as many as keep the encoder busy, and one where more would change them or be compiled anew.
    """

    def __init__(
        self,
        network: Network,
        dtype: torch.dtype = torch.float32,
        row_budget: int = ROW_BUDGET,
        frames_per_pass: int | None = None,
    ) -> None:
        if frames_per_pass is not None and not (isinstance(frames_per_pass, int) and frames_per_pass >= 1):
            raise ConfigError(f"frames_per_pass is {frames_per_pass!r}; expected a whole number of 1 or more, or None")
        self.network = network
        self.dtype = dtype
        self.row_budget = row_budget
        self.frames_encoded = 0  # each frame once is the promise
        self.rows_read = 0  # how many rows went through memory attention and decoder
        self._same_bits = frames_per_pass is not None  # nothing is left to be found out about several at a time
        if frames_per_pass is None:
            fitting = min(FRAMES_PER_PASS, PIXELS_PER_PASS // network.image_size**2)
            frames_per_pass = 1 if network.encodes_alone else max(1, fitting)
        self.frames_per_pass = frames_per_pass
        self._table: Tensor | None = None  # [slots, n, 1, C]; it never changes

    @property
    def device(self) -> torch.device:
        return self.network.device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything that calls the network runs in here: no autograd, our precision, whatever the caller has set."""
        kind = self.device.type
        mixed = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(kind, dtype=self.dtype if mixed else None, enabled=mixed):
            yield

    def absent(self) -> Tensor:
        """The mask of an object that is not there, [1, 1, 4h, 4w] float32 logits."""
        side = self.network.mask_size
        return torch.full((1, 1, side, side), NO_OBJ_SCORE, device=self.device)

    # ---- encode ----------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Image features, frame by frame. images: [N, 3, S, S] normalised float32 on the device."""
        self.frames_encoded += len(images)
        frames = self.network.encode(images)
        if len(images) > 1 and not self._same_bits:
            # Kernels depend on shapes and places, not on pixels, so one pass shows it for all.
            alone = [self.network.encode(image)[0] for image in images.split(1)]
            if not all(_same(*pair) for pair in zip(alone, frames, strict=True)):
                self.frames_per_pass = 1
                return alone
            self._same_bits = True
        return frames

    # ---- propose ---------------------------------------------------------------------------------------------

    def propose(
        self,
        features: FrameFeatures,
        readings: Sequence[Reading],
        num_pointers: int,
        while_waiting: Callable[[], None] | None = None,
        outgoing: Outgoing | None = None,
        with_boxes: bool = False,
    ) -> Proposals:
        """K candidates for every reading, in batches; the numbers come to the CPU in one transfer.

        Readings that are the same are computed once: pathways whose pasts differ in nothing that is still read, as
        after an absence.

        Args:
            features: of the frame.
            readings: R memory readings; row r of the result belongs to readings[r].
            num_pointers: M, which divides the pointers' temporal positions.
            while_waiting: gives a GPU something to do while the host waits and decides.
            outgoing: what else leaves the device goes with the numbers.
            with_boxes: the boxes of the candidates are among the numbers.
        """
        keys = [reading.key for reading in readings]
        distinct = dict(zip(keys, readings, strict=True))
        place_of = {key: place for place, key in enumerate(distinct)}
        places, readings = [place_of[key] for key in keys], list(distinct.values())
        self.rows_read += len(readings)
        conditioned, kept_tokens = self._conditioned(features, readings, num_pointers)
        masks, ious, tokens, logits = self._decoded(features, conditioned)
        k = ious.shape[1]
        numbers = [ious.float(), logits.float(), *([boxes(masks).flatten(1)] if with_boxes else [])]
        verdicts, around = [], []
        # The one host sync.
        for row in (outgoing or Outgoing()).read_out(torch.cat(numbers, dim=1), while_waiting):
            row_ious, logit, corners = row[:k], row[k], iter(map(int, row[k + 1 :]))
            if not all(map(math.isfinite, (*row_ious, logit))):
                raise StateError(
                    "the mask decoder returned a number that is not finite; "
                    'try dtype="float32", and check that the weights belong to this config'
                )
            verdicts.append(Verdict(tuple(row_ious), logit))
            around.append(tuple(zip(*[corners] * 4, strict=True)))
        return Proposals(
            masks, tokens, logits, places,
            verdicts=[verdicts[place] for place in places],
            kept_tokens=[kept_tokens[place] for place in places],
            boxes=[around[place] for place in places],
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
        network = self.network
        token_bytes = 4 * (6 * network.hidden_dim + 2 * network.mem_dim)
        return max(1, self.row_budget // ((bank.tokens(network, reading) + network.queries) * token_bytes))

    def _conditioned(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[Tensor, list[Tensor | None]]:
        """`read` for readings of any layout, and what to keep of each row's newest memory."""
        kept_tokens: list[Tensor | None] = [None] * len(readings)
        batches, parts = self._batches(readings), []
        rows_of = [self._filled_up([readings[row] for row in batch]) for batch in batches]
        numbers_of = bank.sent([bank.numbers(rows) for rows in rows_of], self.device)
        for batch, rows, numbers in zip(batches, rows_of, numbers_of, strict=True):
            conditioned, mattered = self._read(features, rows, num_pointers, numbers)
            parts.append(conditioned[: len(batch)])
            if mattered is not None:
                for row, tokens in zip(batch, mattered[: len(batch)], strict=True):
                    kept_tokens[row] = tokens.clone()  # a view would keep the whole batch alive
        if len(parts) == 1:
            return parts[0], kept_tokens
        order = [row for batch in batches for row in batch]
        joined = torch.cat(parts)
        # Not joined[list]: a list of indices goes to the device in a copy of its own.
        return torch.cat([joined[at : at + 1] for at in sorted(range(len(order)), key=order.__getitem__)]), kept_tokens

    def read(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int
    ) -> tuple[Tensor, Tensor | None]:
        """Image features that have read their memories, [R, D, h, w]; and which tokens of the newest one mattered.

        Readings must have one layout.
        """
        return self._read(features, readings, num_pointers, *bank.sent([bank.numbers(readings)], self.device))

    def _read(
        self, features: FrameFeatures, readings: Sequence[Reading], num_pointers: int, numbers: bank.Numbers
    ) -> tuple[Tensor, Tensor | None]:
        if self._table is None or self._table.device != self.device:
            # The memory encoder hands its position encoding out in the precision of its features.
            self._table = self.network.memory_positions(self.dtype)
        return self.network.read(features, bank.assemble(self.network, self._table, readings, num_pointers, numbers))

    def _decoded(self, features: FrameFeatures, conditioned: Tensor) -> Decoded:
        """`decode` for any number of rows, whatever they have read."""
        # What the decoder's transformer and its enlarging hold of a row, in float32.
        size = max(1, self.row_budget // (4 * 20 * self.network.queries * self.network.hidden_dim))
        parts = []
        for part in conditioned.split(size):
            filling = self.network.filled_up(len(part)) - len(part)
            filled = torch.cat([part, part[-1:].expand(filling, -1, -1, -1)]) if filling else part
            parts.append([each[: len(part)] for each in self.network.decode(features, filled)])
        return tuple(parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True)))

    def _filled_up(self, rows: Sequence[T]) -> list[T]:
        """A batch of rows with the last one repeated, as the network says."""
        return [*rows, *[rows[-1]] * (self.network.filled_up(len(rows)) - len(rows))]

    # ---- remember --------------------------------------------------------------------------------------------

    def remember(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        """Pointers and spatial memories of the kept candidates, in batches. kept: (row, k) pairs.

        Candidates that are the same get the same tensors: that is how `propose` finds equal readings.
        """
        first: dict[Any, tuple[int, int]] = {}
        same = [first.setdefault(self._content(proposals, row, k), (row, k)) for row, k in kept]
        # All K masks at the model's size, and the mask downsampler's first maps, which are about as large.
        size = max(1, self.row_budget // (4 * 3 * proposals.masks.shape[1] * self.network.image_size**2))
        unique = list(first.values())
        entries: dict[tuple[int, int], Any] = {}
        for start in range(0, len(unique), size):
            filled = self._filled_up(unique[start : start + size])
            entries |= zip(filled, self._written(features, proposals, filled), strict=True)
        return [entries[candidate] for candidate in same]

    def _content(self, proposals: Proposals, row: int, k: int) -> Any:
        """Equal for candidates of which the same is remembered: those of one row and k, and all that are absent."""
        if self.network.absent_alike and proposals.verdicts[row].object_logit <= 0:
            return None  # the mask is a constant, and the pointer is the one for "not there"
        return proposals.places[row], k

    def _written(
        self, features: FrameFeatures, proposals: Proposals, kept: Sequence[tuple[int, int]]
    ) -> list[Remembered]:
        rows, ks = proposals.at(kept)
        candidates = proposals.masks[rows]  # [U, K, 4h, 4w]
        masks = candidates[torch.arange(len(kept), device=self.device), ks].unsqueeze(1)  # [U, 1, 4h, 4w]
        logits = proposals.object_logits[rows]
        spatial, pointers = self.network.write(features, candidates, ks, proposals.tokens_of(rows, ks), logits)
        spatial = self._kept(spatial)
        # Clones: a view would keep the whole batch alive for as long as one of its memories lives.
        own = (lambda tensor: tensor.clone()) if len(masks) > 1 else (lambda tensor: tensor)
        return [
            Remembered(own(masks[i : i + 1]), own(spatial[i : i + 1]), own(pointers[i : i + 1]))
            for i in range(len(masks))
        ]

    # ---- prompts ---------------------------------------------------------------------------------------------

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
        """The network's own prompt handling on one frame for one object.

        Args:
            features: of the frame.
            points: clicks and box corners in model pixels; or
            mask: [1, 1, S, S] float 0/1.
            previous: [1, 1, 4h, 4w] mask logits that the new clicks refine.
            reading: the object's memories, when the frame has been tracked before; a mask needs none.
            num_pointers: M, as for `propose`.
        """
        conditioned = None
        if mask is None and reading is not None:
            conditioned = self.read(features, [reading], num_pointers)[0]
        return self.network.prompt(features, points=points, mask=mask, previous=previous, conditioned=conditioned)

    def remember_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None = None) -> Tensor:
        """The spatial memory of a prompted frame, as `Remembered.mask_features`.

        Args:
            features: of the frame. output: of `prompt`.
            mask: bool [S, S]: what was given there, when it was a mask.
        """
        return self._kept(self.network.write_prompt(features, output, mask))

    def _kept(self, memory: Tensor) -> Tensor:
        """A memory in the precision in which it is kept: sam2's bfloat16, which does not go together with float16."""
        return memory.to(torch.float16) if self.dtype == torch.float16 else memory


def _same(one: FrameFeatures, other: FrameFeatures) -> bool:
    return all(map(torch.equal, one.levels, other.levels))

"""Banks of many pathways assembled as tensors, so that a network attends to all of them as one batch.

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory attention.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2long.method.memory import Reading, SpatialRead
from sam2long.method.modulation import rank_weights, weight_keys
from sam2long.network.devices import moved, moved_once, tensor_on
from sam2long.network.features import FrameFeatures


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """What R rows attend to. L: tokens that every layer reads; n: tokens kept of a sparse memory, other ones per layer.

    Tokens are in the order: whole spatial memories, [sparse ones, which are apart], object pointers.
    """

    memory: Tensor  # [R, L, C]
    positions: Tensor  # [R, L, C], already weighted; [1, L, C] where all rows have the same
    pointer_tokens: int  # the last so many of L; they have no place in the frame
    sparse: SparseTokens | None = None
    newest: slice | None = None  # where the newest memory stands in L, when it is whole and not a prompted one


@dataclass(frozen=True, slots=True, eq=False)
class SparseTokens:
    """Kept tokens of S older memories for each of the layers."""

    memory: Tensor  # [R, layers, S * n, C]
    positions: Tensor  # [R, layers, S * n, C], already weighted
    places: Tensor  # [R, layers, S * n] int64, token index in the frame


class MemoryReader(ABC):
    """Assembles banks, and reads them with a network's memory attention.

    Args:
        model: in eval mode, with `device`, `hidden_dim` and `mem_dim`; never changed.
        modulation: key weights of the least and the most visible memory; (1, 1) leaves attention untouched.
        sparse_share: of a memory's tokens, how many stay readable once it is no longer the newest; 1 keeps all.
    """

    def __init__(self, model: nn.Module, modulation: tuple[float, float], sparse_share: float = 1.0) -> None:
        self.model = model
        self.modulation = modulation
        self.sparse_share = sparse_share
        self._table: Tensor | None = None  # [slots, n, 1, C]
        self._table_key: tuple[torch.device, torch.dtype] | None = None  # what it was made for

    # ---- what a back end brings ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def queries(self) -> int:
        """Tokens of a frame, h * w."""

    @property
    @abstractmethod
    def memory_tokens(self) -> int:
        """n, the tokens of a spatial memory: h * w, or fewer where memories are compressed."""

    @abstractmethod
    def _make_table(self, dtype: torch.dtype) -> Tensor:
        """Positions of a spatial memory for each temporal slot, [slots, n, 1, C]."""

    @abstractmethod
    def _pointer_positions(self, steps: Tensor, num_pointers: int) -> Tensor | None:
        """Of temporal distances [...], their positions [..., C]; None: pointers have none."""

    @abstractmethod
    def read(self, features: FrameFeatures, bank: Bank) -> tuple[Tensor, Tensor | None]:
        """Image features that have read their memories.

        Args:
            features: of the frame.
            bank: of R rows.
        Returns:
            [R, D, h, w]; and, when the reader is sparse, which tokens of the newest memory mattered to each layer,
            [R, layers, n] int64.
        """

    def _sparse(self, readings: Sequence[Reading], older: list[int], weights: Tensor | None) -> SparseTokens:
        """The kept tokens of older memories. Only a reader that takes sparse_share below 1 is asked."""
        raise NotImplementedError

    # ---- what all have ---------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def split(self) -> int:
        """Tokens per object pointer: a pointer is wider than a memory token."""
        return max(1, self.model.hidden_dim // self.model.mem_dim)

    @property
    def kept(self) -> int:
        """Tokens that stay of a sparse memory, per layer."""
        return min(self.memory_tokens, math.ceil(self.sparse_share * self.memory_tokens))

    def tokens(self, reading: Reading) -> int:
        """How many tokens a row of this reading attends to."""
        whole, sparse = sum(read.whole for read in reading.spatial), sum(not read.whole for read in reading.spatial)
        return whole * self.memory_tokens + sparse * self.kept + len(reading.pointers) * self.split

    def assemble(self, readings: Sequence[Reading], num_pointers: int) -> Bank:
        """The banks of R rows. Readings must have one layout.

        Args:
            readings: one per row.
            num_pointers: M, which divides the pointers' temporal positions.
        """
        whole = [at for at, read in enumerate(readings[0].spatial) if read.whole]
        older = [at for at, read in enumerate(readings[0].spatial) if not read.whole]
        weights, pointer_weights = self._weights(readings)
        read = [[row.spatial[at] for at in whole] for row in readings]
        pointers = self._pointers(readings)  # [R, m * split, C]
        positions = self._positions(read, self._placed(readings, num_pointers))
        memory = self._memory(read, pointers, positions.dtype)
        if weights is not None:
            # One number per memory goes over, and is spread over its tokens there.
            by_token = [moved(weights[:, whole], memory.device).repeat_interleave(self.memory_tokens, dim=1)]
            if pointer_weights is not None:
                by_token.append(moved(pointer_weights, memory.device).repeat_interleave(self.split, dim=1))
            positions = weight_keys(memory, positions, torch.cat(by_token, dim=1))
        sparse = self._sparse(readings, older, weights) if older else None
        return Bank(memory, positions, pointers.shape[1], sparse, self._newest(readings[0], whole))

    def _newest(self, reading: Reading, whole: list[int]) -> slice | None:
        last = len(reading.spatial) - 1
        if reading.spatial[last].prompted or last not in whole:
            return None
        n = self.memory_tokens
        return slice((len(whole) - 1) * n, len(whole) * n)

    def _memory(self, rows: list[list[SpatialRead]], pointers: Tensor, dtype: torch.dtype) -> Tensor:
        """Whole spatial memories, and pointers [R, n, C] behind them: [R, L, C]."""
        features = self._features(rows).flatten(2).unflatten(0, (len(rows), -1))  # [R, memories, C, tokens]
        spatial = features.shape[1] * features.shape[3]
        # Everything is written once, where it stays.
        memory = features.new_empty(len(rows), spatial + pointers.shape[1], features.shape[2], dtype=dtype)
        memory[:, :spatial].unflatten(1, (features.shape[1], -1)).copy_(features.transpose(2, 3))
        memory[:, spatial:] = pointers
        return memory

    def _positions(self, rows: list[list[SpatialRead]], of_pointers: Tensor) -> Tensor:
        """Positions of whole spatial memories, and those of pointers [R or 1, n, C] behind them: [R or 1, L, C]."""
        table = self._spatial_table()
        slots = [[read.slot for read in row] for row in rows]
        if all(row == slots[0] for row in slots):
            slots = slots[:1]
        count = max(len(slots), len(of_pointers))
        # Not table[list]: a list of indices goes to the device in a copy that waits for it.
        each = [torch.cat([table[slot] for slot in row])[:, 0] for row in slots]  # [memories * tokens, C]
        spatial = torch.stack(each) if len(each) > 1 else each[0].expand(count, -1, -1)
        return torch.cat([spatial, of_pointers.expand(count, -1, -1)], dim=1)

    def _features(self, rows: list[list[SpatialRead]]) -> Tensor:
        # Pathways share memories: each is fetched once when they are kept on the host.
        return torch.cat(moved_once([read.memory.mask_features for row in rows for read in row], self.device))

    def _spatial_table(self) -> Tensor:
        """Positions of a spatial memory for each temporal slot, [slots, n, 1, C]; they never change."""
        device = self.device
        # The memory encoder hands its position encoding out in the precision of its features.
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else torch.float32
        if self._table is None or self._table_key != (device, dtype):
            self._table = self._make_table(dtype)
            self._table_key = (device, dtype)
        return self._table

    def _pointers(self, readings: Sequence[Reading]) -> Tensor:
        """Object pointers as tokens, [R, n, C]."""
        width = self.model.hidden_dim // self.split
        reads = [read.memory.object_ptr for row in readings for read in row.pointers]
        if not reads:
            return torch.empty(len(readings), 0, width, device=self.device)
        return torch.cat(reads).view(len(readings), -1, width)

    def _placed(self, readings: Sequence[Reading], num_pointers: int) -> Tensor:
        """Positions of the pointers' tokens, [R or 1, n, C]; one row where all agree."""
        distances = [[read.position for read in row.pointers] for row in readings]
        if all(row == distances[0] for row in distances):
            distances = distances[:1]
        positions = None
        if distances[0]:
            positions = self._pointer_positions(tensor_on(self.device, distances), num_pointers)
        if positions is None:
            width = self.model.hidden_dim // self.split
            return self._spatial_table().new_zeros(1, len(distances[0]) * self.split, width)
        return positions.repeat_interleave(self.split, dim=1) if self.split > 1 else positions

    def _weights(self, readings: Sequence[Reading]) -> tuple[Tensor | None, Tensor | None]:
        """Key weights of spatial memories [R, n] and of pointers [R, m], ranked separately; None: leave alone."""
        if len(readings[0].spatial) < 2 or self.modulation == (1.0, 1.0):
            return None, None
        spatial = [[read.memory.object_logit for read in row.spatial] for row in readings]
        pointers = [[read.memory.object_logit for read in row.pointers] for row in readings]
        # On the CPU: the logits are there already.
        ranked = rank_weights(torch.tensor(spatial), *self.modulation)
        return ranked, rank_weights(torch.tensor(pointers), *self.modulation) if pointers[0] else None

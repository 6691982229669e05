"""The memory read: banks of many pathways assembled as tensors and attended to as one batch.

A sparse read gives every layer tokens of its own, so it drives the layers of sam2's memory attention itself.
Names relied on, beside those of parts.py:

  layer.norm2, cross_attn_image.q_proj, k_proj, v_proj, out_proj,
    num_heads, freqs_cis, compute_cis                    the sparse read
  maskmem_tpos_enc, memory_encoder.position_encoding     temporal and spatial positions of memories
  obj_ptr_tpos_proj, get_1d_sine_pe                      temporal positions of object pointers

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor, nn

from sam2long.method.memory import Reading, SpatialRead
from sam2long.method.modulation import rank_weights, weight_keys
from sam2long.network.devices import moved, moved_once, tensor_on
from sam2long.network.parts import Parts, entered, fed_forward

JUDGES = 256  # queries that say which tokens of a new memory matter; spread evenly over the frame


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """What R rows attend to. L: tokens that every layer reads; n: tokens kept of a sparse memory, other ones per layer.

    Tokens are in the order: whole spatial memories, [sparse ones, which are apart], object pointers.
    """

    memory: Tensor  # [L, R, C]
    positions: Tensor  # [L, R, C], already weighted
    pointer_tokens: int  # the last so many of L; they have no place in the frame
    sparse: SparseTokens | None = None
    newest: slice | None = None  # where the newest memory stands in L, when it is whole and not a prompted one


@dataclass(frozen=True, slots=True, eq=False)
class SparseTokens:
    """Kept tokens of S older memories for each of the layers."""

    memory: Tensor  # [R, layers, S * n, C]
    positions: Tensor  # [R, layers, S * n, C], already weighted
    places: Tensor  # [R, layers, S * n] int64, token index in the frame


class MemoryReader:
    """Assembles banks and reads them.

    Args:
        model: any SAM2Base in eval mode; never changed.
        modulation: key weights of the least and the most visible memory; (1, 1) leaves attention untouched.
        sparse_share: of a memory's tokens, how many stay readable once it is no longer the newest; 1 keeps all.
        parts: the network's calls; None for eager ones. A sparse read is always eager.
    """

    def __init__(
        self,
        model: SAM2Base,
        modulation: tuple[float, float],
        sparse_share: float = 1.0,
        parts: Parts | None = None,
    ) -> None:
        self.model = model
        self.parts = parts or Parts.eager(model)
        self.modulation = modulation
        self.sparse_share = sparse_share
        self._table: Tensor | None = None  # [slots, hw, 1, C]
        self._table_key: tuple[torch.device, torch.dtype] | None = None  # what it was made for
        self._turns: Tensor | None = None  # [hw, d / 2] complex

    @property
    def side(self) -> int:
        """Of the coarsest feature map, and of a spatial memory."""
        return self.model.image_size // self.model.backbone_stride

    @property
    def kept(self) -> int:
        """Tokens that stay of a sparse memory, per layer."""
        return min(self.side**2, math.ceil(self.sparse_share * self.side**2))

    def tokens(self, reading: Reading) -> int:
        """How many tokens a row of this reading attends to."""
        whole, sparse = sum(read.whole for read in reading.spatial), sum(not read.whole for read in reading.spatial)
        return whole * self.side**2 + sparse * self.kept + len(reading.pointers) * self._split

    @property
    def _split(self) -> int:
        """Tokens per object pointer: a pointer is wider than a memory token."""
        return max(1, self.model.hidden_dim // self.model.mem_dim)

    # ---- the bank --------------------------------------------------------------------------------------------

    def assemble(self, readings: Sequence[Reading], num_pointers: int) -> Bank:
        """The banks of R rows. Readings must have one layout.

        Args:
            readings: one per row.
            num_pointers: M, which divides the pointers' temporal positions.
        """
        whole = [at for at, read in enumerate(readings[0].spatial) if read.whole]
        older = [at for at, read in enumerate(readings[0].spatial) if not read.whole]
        weights, pointer_weights = self._weights(readings)
        memory, positions = self._spatial([[row.spatial[at] for at in whole] for row in readings])  # [L, R, C]
        parts, positions_of, pointer_tokens = [memory], [positions], 0
        if readings[0].pointers:
            pointers, pointer_positions = self._pointers(readings, num_pointers)
            parts.append(pointers)
            positions_of.append(pointer_positions)
            pointer_tokens = len(pointers)
        memory, positions = torch.cat(parts), torch.cat(positions_of)
        if memory.dtype != positions.dtype:
            memory = memory.to(positions.dtype)  # without pointers nothing has promoted the bfloat16 features
        if weights is not None:
            each = [self.side**2] * len(whole) + [self._split] * len(readings[0].pointers)
            ranked = weights[:, whole]
            if pointer_weights is not None:
                ranked = torch.cat([ranked, pointer_weights], dim=1)
            # One number per memory goes over, and is spread over its tokens there.
            by_memory = moved(ranked, memory.device).t()  # [memories, R]
            by_token = torch.cat([weight.expand(n, -1) for weight, n in zip(by_memory.split(1), each, strict=True)])
            positions = weight_keys(memory, positions, by_token)
        sparse = self._sparse(readings, older, weights, memory.dtype) if older else None
        return Bank(memory, positions, pointer_tokens, sparse, self._newest(readings[0], whole))

    def _newest(self, reading: Reading, whole: list[int]) -> slice | None:
        last = len(reading.spatial) - 1
        if reading.spatial[last].prompted or last not in whole:
            return None
        hw = self.side**2
        return slice((len(whole) - 1) * hw, len(whole) * hw)

    def _spatial(self, rows: list[list[SpatialRead]]) -> tuple[Tensor, Tensor]:
        features = self._features(rows)  # [R * n, C, h, w]
        count, channels = len(rows[0]), features.shape[1]
        tokens = features.flatten(2).reshape(len(rows), count, channels, -1).permute(1, 3, 0, 2).flatten(0, 1)
        table = self._spatial_table()
        slots = [[read.slot for read in row] for row in rows]
        if all(row == slots[0] for row in slots):
            positions = torch.cat([table[slot] for slot in slots[0]]).expand(-1, len(rows), -1)  # [n*hw, R, C]
        else:  # not table[list]: a list of indices goes to the device in a copy that waits for it
            positions = torch.stack([torch.cat([table[slot] for slot in row])[:, 0] for row in slots], dim=1)
        return tokens, positions

    def _features(self, rows: list[list[SpatialRead]]) -> Tensor:
        # Pathways share memories: each is fetched once when they are kept on the host.
        return torch.cat(moved_once([read.memory.mask_features for row in rows for read in row], self.model.device))

    def _spatial_table(self) -> Tensor:
        """Positions of a spatial memory for each temporal slot, [slots, hw, 1, C]; they never change."""
        device = self.model.device
        # The memory encoder hands its position encoding out in the precision of its features.
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else torch.float32
        if self._table is None or self._table_key != (device, dtype):
            like = torch.zeros(1, self.model.mem_dim, self.side, self.side, device=device)
            grid = self.model.memory_encoder.position_encoding(like).to(dtype)
            grid = grid.flatten(2).permute(2, 0, 1)  # [hw, 1, C]
            self._table = torch.stack([grid + slot for slot in self.model.maskmem_tpos_enc])
            self._table_key = (device, dtype)
        return self._table

    def _pointers(self, readings: Sequence[Reading], num_pointers: int) -> tuple[Tensor, Tensor]:
        model, rows, count = self.model, len(readings), len(readings[0].pointers)
        pointers = torch.stack(
            [torch.cat([row.pointers[i].memory.object_ptr for row in readings]) for i in range(count)]
        )  # [n, R, D]
        if model.add_tpos_enc_to_obj_ptrs:
            distances = [[read.position for read in row.pointers] for row in readings]
            shared = all(row == distances[0] for row in distances)
            steps = tensor_on(model.device, distances[0] if shared else distances)
            width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
            positions = model.obj_ptr_tpos_proj(get_1d_sine_pe(steps / (num_pointers - 1), dim=width))
            # [n, C] when all rows agree, else [R, n, C]
            positions = positions.unsqueeze(1).expand(-1, rows, -1) if shared else positions.transpose(0, 1)
        else:
            positions = pointers.new_zeros(count, rows, model.mem_dim)
        if self._split > 1:
            pointers = pointers.reshape(count, rows, self._split, model.mem_dim).permute(0, 2, 1, 3).flatten(0, 1)
            positions = positions.repeat_interleave(self._split, dim=0)
        return pointers, positions

    def _weights(self, readings: Sequence[Reading]) -> tuple[Tensor | None, Tensor | None]:
        """Key weights of spatial memories [R, n] and of pointers [R, m], ranked separately; None: leave alone."""
        if len(readings[0].spatial) < 2 or self.modulation == (1.0, 1.0):
            return None, None
        spatial = [[read.memory.object_logit for read in row.spatial] for row in readings]
        pointers = [[read.memory.object_logit for read in row.pointers] for row in readings]
        # On the CPU: the logits are there already.
        ranked = rank_weights(torch.tensor(spatial), *self.modulation)
        return ranked, rank_weights(torch.tensor(pointers), *self.modulation) if pointers[0] else None

    def _sparse(
        self, readings: Sequence[Reading], older: list[int], weights: Tensor | None, dtype: torch.dtype
    ) -> SparseTokens:
        rows, device = len(readings), self.model.device
        reads = [[row.spatial[at] for at in older] for row in readings]
        features = self._features(reads).flatten(2).transpose(1, 2).to(dtype)  # [R * S, hw, C]
        places = torch.stack([read.memory.kept_tokens for row in reads for read in row]).to(device)  # [R*S, layers, n]
        layers = places.shape[1]
        flat = places.flatten(1).unsqueeze(-1)  # [R * S, layers * n, 1]
        memory = features.gather(1, flat.expand(-1, -1, features.shape[2]))
        table = self._spatial_table()[:, :, 0]  # [slots, hw, C]
        slots = tensor_on(device, [[read.slot] for row in reads for read in row])
        positions = table[slots, flat[..., 0]]  # [R * S, layers * n, C]
        if weights is not None:
            by_memory = moved(weights[:, older].flatten(), device)
            positions = weight_keys(memory, positions, by_memory[:, None].expand(-1, memory.shape[1]))

        def by_layer(tokens: Tensor) -> Tensor:
            return tokens.unflatten(0, (rows, -1)).unflatten(2, (layers, -1)).transpose(1, 2).flatten(2, 3)

        return SparseTokens(by_layer(memory), by_layer(positions), by_layer(flat)[..., 0])

    # ---- the read --------------------------------------------------------------------------------------------

    def read(self, current: Tensor, position: Tensor, bank: Bank) -> tuple[Tensor, Tensor | None]:
        """Image features that have read their memories.

        Args:
            current, position: of the coarsest level, [hw, 1, D].
            bank: of R rows.
        Returns:
            [R, D, h, w]; and, when the reader is sparse, which tokens of the newest memory mattered to each layer,
            [R, layers, n] int64.
        """
        memory, memory_pos = bank.memory.transpose(0, 1), bank.positions.transpose(0, 1)  # [R, L, C]
        current, position = current.transpose(0, 1), position.transpose(0, 1)  # [1, hw, D]
        mattered = None
        if self.sparse_share < 1:
            x, mattered = self._attend_sparsely(current, position, memory, memory_pos, bank)
        else:
            x = self.parts.attend(current, position, memory, memory_pos, bank.pointer_tokens)
        return x.transpose(1, 2).view(len(x), self.model.hidden_dim, self.side, self.side), mattered

    def _attend_sparsely(
        self, current: Tensor, position: Tensor, memory: Tensor, memory_pos: Tensor, bank: Bank
    ) -> tuple[Tensor, Tensor | None]:
        """`parts.attend` for a bank of which some memories are sparse; and what of the newest one mattered."""
        attention, rows, mattered = self.model.memory_attention, len(memory), []
        x = entered(attention, current, position)
        for depth, layer in enumerate(attention.layers):
            x = layer._forward_sa(x, position)
            x, position = x.expand(rows, -1, -1), position.expand(rows, -1, -1)
            x, tokens = self._cross(layer, x, position, memory, memory_pos, bank, depth)
            mattered.append(tokens)
            x = fed_forward(layer, x)
        return attention.norm(x), None if bank.newest is None else torch.stack(mattered, dim=1)

    def _cross(
        self, layer: nn.Module, x: Tensor, place: Tensor, memory: Tensor, memory_pos: Tensor, bank: Bank, depth: int
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """One layer's read of a bank of which some memories are sparse; and what of the newest one mattered."""
        attend = layer.cross_attn_image
        spatial = memory.shape[1] - bank.pointer_tokens
        turns = self._turns_of(attend)  # [hw, d / 2]
        keys, values = memory + memory_pos if layer.pos_enc_at_cross_attn_keys else memory, memory
        angles = turns.repeat(spatial // len(turns), 1).expand(len(x), 1, -1, -1)
        if bank.sparse is not None:
            tokens, positions = bank.sparse.memory[:, depth], bank.sparse.positions[:, depth]
            more = tokens + positions if layer.pos_enc_at_cross_attn_keys else tokens
            keys, values = torch.cat([more, keys], 1), torch.cat([tokens, values], 1)
            angles = torch.cat([turns[bank.sparse.places[:, depth]].unsqueeze(1), angles], 2)
        normed = layer.norm2(x)
        queries = attend.q_proj(normed + place if layer.pos_enc_at_cross_attn_queries else normed)
        q, k, v = (_heads(t, attend.num_heads) for t in (queries, attend.k_proj(keys), attend.v_proj(values)))
        q, k = (
            _turned(q, turns),
            torch.cat([_turned(k[:, :, : angles.shape[2]], angles), k[:, :, angles.shape[2] :]], 2),
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        offset = angles.shape[2] - spatial
        mattered = None
        if bank.newest is not None:
            mattered = self._mattered(q, k, slice(bank.newest.start + offset, bank.newest.stop + offset))
        return x + attend.out_proj(out), mattered

    def _mattered(self, q: Tensor, k: Tensor, newest: slice) -> Tensor:
        """The tokens of the newest memory that get the most attention, [R, n]; asked of evenly spaced queries."""
        step = max(1, q.shape[2] // JUDGES)
        scores = q[:, :, step // 2 :: step] @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        share = scores.float().softmax(-1)[..., newest].sum((1, 2))  # [R, hw]
        return share.topk(self.kept, dim=1).indices

    def _turns_of(self, attend: nn.Module) -> Tensor:
        """RoPE of one memory's tokens, as complex factors."""
        if self._turns is None or self._turns.device != self.model.device:
            turns = attend.freqs_cis
            if len(turns) != self.side**2:
                turns = attend.compute_cis(end_x=self.side, end_y=self.side)
            self._turns = turns.to(self.model.device)
        return self._turns


def _heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)  # [R, heads, tokens, d]


def _turned(tokens: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(tokens)

"""The memory read through sam2's memory attention, whole or sparse.

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

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor, nn

from sam2long.method.memory import Reading
from sam2long.method.modulation import weight_keys
from sam2long.network.devices import moved, tensor_on
from sam2long.network.features import FrameFeatures
from sam2long.network.memory_bank import Bank, MemoryReader, SparseTokens
from sam2long.network.parts import Parts, entered, fed_forward

JUDGES = 256  # queries that say which tokens of a new memory matter; spread evenly over the frame


class Sam2MemoryReader(MemoryReader):
    """Reads banks with sam2's memory attention.

    Args:
        model: any SAM2Base in eval mode; never changed.
        modulation, sparse_share: as for `MemoryReader`.
        parts: the network's calls; None for eager ones. A sparse read is always eager.
    """

    def __init__(
        self,
        model: SAM2Base,
        modulation: tuple[float, float],
        sparse_share: float = 1.0,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(model, modulation, sparse_share)
        self.parts = parts or Parts.eager(model)
        self._turns: Tensor | None = None  # [hw, d / 2] complex

    @property
    def side(self) -> int:
        """Of the coarsest feature map, and of a spatial memory."""
        return self.model.image_size // self.model.backbone_stride

    @property
    def queries(self) -> int:
        return self.side**2

    memory_tokens = queries

    # ---- the bank --------------------------------------------------------------------------------------------

    def _make_table(self, dtype: torch.dtype) -> Tensor:
        like = torch.zeros(1, self.model.mem_dim, self.side, self.side, device=self.device)
        grid = self.model.memory_encoder.position_encoding(like).to(dtype)
        grid = grid.flatten(2).permute(2, 0, 1)  # [hw, 1, C]
        return torch.stack([grid + slot for slot in self.model.maskmem_tpos_enc])

    def _pointer_positions(self, steps: Tensor, num_pointers: int) -> Tensor | None:
        model = self.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return None
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        return model.obj_ptr_tpos_proj(get_1d_sine_pe(steps / (num_pointers - 1), dim=width))

    def _sparse(self, readings: Sequence[Reading], older: list[int], weights: Tensor | None) -> SparseTokens:
        rows, device, table = len(readings), self.device, self._spatial_table()[:, :, 0]  # [slots, hw, C]
        reads = [[row.spatial[at] for at in older] for row in readings]
        features = self._features(reads).flatten(2).transpose(1, 2).to(table.dtype)  # [R * S, hw, C]
        places = torch.stack([read.memory.kept_tokens for row in reads for read in row]).to(device)  # [R*S, layers, n]
        layers = places.shape[1]
        flat = places.flatten(1).unsqueeze(-1)  # [R * S, layers * n, 1]
        memory = features.gather(1, flat.expand(-1, -1, features.shape[2]))
        slots = tensor_on(device, [[read.slot] for row in reads for read in row])
        positions = table[slots, flat[..., 0]]  # [R * S, layers * n, C]
        if weights is not None:
            by_memory = moved(weights[:, older].flatten(), device)
            positions = weight_keys(memory, positions, by_memory[:, None].expand(-1, memory.shape[1]))

        def by_layer(tokens: Tensor) -> Tensor:
            return tokens.unflatten(0, (rows, -1)).unflatten(2, (layers, -1)).transpose(1, 2).flatten(2, 3)

        return SparseTokens(by_layer(memory), by_layer(positions), by_layer(flat)[..., 0])

    # ---- the read --------------------------------------------------------------------------------------------

    def read(self, features: FrameFeatures, bank: Bank) -> tuple[Tensor, Tensor | None]:
        current, position = features.levels[-1], features.positions[-1]  # [hw, 1, D]
        memory, memory_pos = bank.memory, bank.positions
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

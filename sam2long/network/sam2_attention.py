"""sam2's memory attention over the banks of many rows, whole or sparse, driven layer by layer.

All pathways of a frame share the first self-attention, and a sparse read gives every layer tokens of its own.
Names relied on:

  memory_attention.layers, .norm, .pos_enc_at_input
  layer._forward_sa, _forward_ca, norm3, linear1, linear2, activation
  layer.norm2, cross_attn_image.q_proj, k_proj, v_proj, out_proj,
    num_heads, freqs_cis, compute_cis                    the sparse read

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory attention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2long.network.protocol import Bank

JUDGES = 256  # queries that say which tokens of a new memory matter; spread evenly over the frame


def attend(
    attention: nn.Module, current: Tensor, position: Tensor, memory: Tensor, memory_pos: Tensor, pointer_tokens: int
) -> Tensor:
    """sam2's memory attention over a bank of R rows; the first self-attention, which sees the image alone, runs once.

    Args:
        attention: sam2's MemoryAttention.
        current, position: image features and their positions, [1, hw, D].
        memory, memory_pos: [R, L, C].
        pointer_tokens: the last so many of L.
    Returns:
        [R, hw, D].
    """
    rows = memory.shape[0]
    x = entered(attention, current, position)
    for layer in attention.layers:
        x = layer._forward_sa(x, position)
        x, position = x.expand(rows, -1, -1), position.expand(rows, -1, -1)
        x = layer._forward_ca(x, memory, position, memory_pos, pointer_tokens)
        x = fed_forward(layer, x)
    return attention.norm(x)


def entered(attention: nn.Module, current: Tensor, position: Tensor) -> Tensor:
    """What the first layer sees of the image."""
    return current + 0.1 * position if attention.pos_enc_at_input else current


def fed_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's last third."""
    return x + layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))


def attend_sparsely(
    attention: nn.Module, current: Tensor, position: Tensor, bank: Bank, turns: Tensor
) -> tuple[Tensor, Tensor | None]:
    """`attend` for a bank of which some memories are sparse; and what of the newest one mattered to each layer.

    Args:
        attention, current, position: as for `attend`. turns: by `turns_of`.
        bank: of R rows; `bank.kept` tokens are to be kept of the newest memory.
    Returns:
        [R, hw, D], and [R, layers, n] int64 or None.
    """
    rows, mattered = len(bank.memory), []
    x = entered(attention, current, position)
    for depth, layer in enumerate(attention.layers):
        x = layer._forward_sa(x, position)
        x, position = x.expand(rows, -1, -1), position.expand(rows, -1, -1)
        x, tokens = _cross(layer, x, position, bank, turns, depth)
        mattered.append(tokens)
        x = fed_forward(layer, x)
    return attention.norm(x), None if bank.newest is None else torch.stack(mattered, dim=1)


def turns_of(attention: nn.Module, side: int) -> Tensor:
    """RoPE of one memory's tokens, as complex factors [hw, d / 2]. side: of the feature map."""
    attend = attention.layers[0].cross_attn_image
    return attend.freqs_cis if len(attend.freqs_cis) == side**2 else attend.compute_cis(end_x=side, end_y=side)


def _cross(
    layer: nn.Module, x: Tensor, place: Tensor, bank: Bank, turns: Tensor, depth: int
) -> tuple[Tensor, Tensor | None]:
    """One layer's read of a bank of which some memories are sparse; and what of the newest one mattered."""
    attend, memory, memory_pos = layer.cross_attn_image, bank.memory, bank.positions
    spatial = memory.shape[1] - bank.pointer_tokens
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
    if bank.newest is not None and bank.kept is not None:
        mattered = most_attended(q, k, slice(bank.newest.start + offset, bank.newest.stop + offset), bank.kept)
    return x + attend.out_proj(out), mattered


def most_attended(q: Tensor, k: Tensor, newest: slice, kept: int) -> Tensor:
    """The tokens of the newest memory that get the most attention, [R, n]; asked of evenly spaced queries."""
    step = max(1, q.shape[2] // JUDGES)
    scores = q[:, :, step // 2 :: step] @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    share = scores.float().softmax(-1)[..., newest].sum((1, 2))  # [R, hw]
    return share.topk(kept, dim=1).indices


def _heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)  # [R, heads, tokens, d]


def _turned(tokens: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(tokens)

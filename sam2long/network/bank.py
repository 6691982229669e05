"""Banks of many pathways assembled as tensors, so that a network attends to all of them as one batch.

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sam2long.method.memory import Reading, SpatialRead
from sam2long.method.modulation import rank_weights, weight_keys
from sam2long.network.devices import moved, moved_once, tensor_on
from sam2long.network.protocol import Bank, Network, SparseTokens


def split(network: Network) -> int:
    """Tokens per object pointer: a pointer is wider than a memory token."""
    return max(1, network.hidden_dim // network.mem_dim)


def kept(network: Network, share: float) -> int:
    """Tokens that stay of a sparse memory, per layer."""
    return min(network.memory_tokens, math.ceil(share * network.memory_tokens))


def tokens(network: Network, reading: Reading) -> int:
    """How many tokens a row of this reading attends to."""
    whole, sparse = sum(read.whole for read in reading.spatial), sum(not read.whole for read in reading.spatial)
    of_memories = whole * network.memory_tokens + sparse * kept(network, reading.sparse_share)
    return of_memories + len(reading.pointers) * split(network)


def assemble(network: Network, table: Tensor, readings: Sequence[Reading], num_pointers: int) -> Bank:
    """The banks of R rows. Readings must have one layout.

    Args:
        network: that will read the bank.
        table: its `memory_positions`, in the precision of the bank.
        readings: one per row.
        num_pointers: M, which divides the pointers' temporal positions.
    """
    whole = [at for at, read in enumerate(readings[0].spatial) if read.whole]
    older = [at for at, read in enumerate(readings[0].spatial) if not read.whole]
    weights, pointer_weights = key_weights(readings)
    read = [[row.spatial[at] for at in whole] for row in readings]
    pointers = _pointers(network, readings)  # [R, m * split, C]
    positions = _positions(table, read, _pointer_positions(network, table, readings, num_pointers))
    memory = _memory(network, read, pointers, positions.dtype)
    if weights is not None:
        # One number per memory goes over, and is spread over its tokens there.
        by_token = [moved(weights[:, whole], memory.device).repeat_interleave(network.memory_tokens, dim=1)]
        if pointer_weights is not None:
            by_token.append(moved(pointer_weights, memory.device).repeat_interleave(split(network), dim=1))
        positions = weight_keys(memory, positions, torch.cat(by_token, dim=1))
    share = readings[0].sparse_share
    return Bank(
        memory,
        positions,
        pointers.shape[1],
        kept=kept(network, share) if share < 1 else None,
        sparse=_sparse(network, table, readings, older, weights) if older else None,
        newest=_newest(network, readings[0], whole),
    )


def key_weights(readings: Sequence[Reading]) -> tuple[Tensor | None, Tensor | None]:
    """Key weights of spatial memories [R, S] and of pointers [R, m], ranked separately; None: leave alone."""
    if len(readings[0].spatial) < 2 or all(reading.modulation == (1.0, 1.0) for reading in readings):
        return None, None
    spatial = [[read.memory.object_logit for read in row.spatial] for row in readings]
    pointers = [[read.memory.object_logit for read in row.pointers] for row in readings]
    return _ranked(spatial, readings), _ranked(pointers, readings) if pointers[0] else None


def _ranked(logits: list[list[float]], readings: Sequence[Reading]) -> Tensor:
    # On the CPU: the logits are there already.
    if len({reading.modulation for reading in readings}) == 1:
        return rank_weights(torch.tensor(logits), *readings[0].modulation)
    rows = zip(logits, readings, strict=True)
    return torch.cat([rank_weights(torch.tensor([row]), *reading.modulation) for row, reading in rows])


def _newest(network: Network, reading: Reading, whole: list[int]) -> slice | None:
    last = len(reading.spatial) - 1
    if reading.spatial[last].prompted or last not in whole:
        return None
    n = network.memory_tokens
    return slice((len(whole) - 1) * n, len(whole) * n)


def _memory(network: Network, rows: list[list[SpatialRead]], pointers: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole spatial memories, and pointers [R, n, C] behind them: [R, L, C]."""
    features = _features(network, rows).flatten(2).unflatten(0, (len(rows), -1))  # [R, memories, C, tokens]
    spatial = features.shape[1] * features.shape[3]
    # Everything is written once, where it stays.
    memory = features.new_empty(len(rows), spatial + pointers.shape[1], features.shape[2], dtype=dtype)
    memory[:, :spatial].unflatten(1, (features.shape[1], -1)).copy_(features.transpose(2, 3))
    memory[:, spatial:] = pointers
    return memory


def _features(network: Network, rows: list[list[SpatialRead]]) -> Tensor:
    # Pathways share memories: each is fetched once when they are kept on the host.
    return torch.cat(moved_once([read.memory.mask_features for row in rows for read in row], network.device))


def _positions(table: Tensor, rows: list[list[SpatialRead]], of_pointers: Tensor) -> Tensor:
    """Positions of whole spatial memories, and those of pointers [R or 1, n, C] behind them: [R or 1, L, C]."""
    slots = [[read.slot for read in row] for row in rows]
    if all(row == slots[0] for row in slots):
        slots = slots[:1]
    count = max(len(slots), len(of_pointers))
    # Not table[list]: a list of indices goes to the device in a copy that waits for it.
    each = [torch.cat([table[slot] for slot in row])[:, 0] for row in slots]  # [memories * tokens, C]
    spatial = torch.stack(each) if len(each) > 1 else each[0].expand(count, -1, -1)
    return torch.cat([spatial, of_pointers.expand(count, -1, -1)], dim=1)


def _pointers(network: Network, readings: Sequence[Reading]) -> Tensor:
    """Object pointers as tokens, [R, n, C]."""
    width = network.hidden_dim // split(network)
    reads = [read.memory.object_ptr for row in readings for read in row.pointers]
    if not reads:
        return torch.empty(len(readings), 0, width, device=network.device)
    return torch.cat(reads).view(len(readings), -1, width)


def _pointer_positions(network: Network, table: Tensor, readings: Sequence[Reading], num_pointers: int) -> Tensor:
    """Positions of the pointers' tokens, [R or 1, n, C]; one row where all agree."""
    distances = [[read.position for read in row.pointers] for row in readings]
    if all(row == distances[0] for row in distances):
        distances = distances[:1]
    positions = None
    if distances[0]:
        positions = network.pointer_positions(tensor_on(network.device, distances), num_pointers)
    if positions is None:
        width = network.hidden_dim // split(network)
        return table.new_zeros(1, len(distances[0]) * split(network), width)
    return positions.repeat_interleave(split(network), dim=1) if split(network) > 1 else positions


def _sparse(
    network: Network, table: Tensor, readings: Sequence[Reading], older: list[int], weights: Tensor | None
) -> SparseTokens:
    """The kept tokens of older memories."""
    rows, device, table = len(readings), network.device, table[:, :, 0]  # [slots, n, C]
    reads = [[row.spatial[at] for at in older] for row in readings]
    features = _features(network, reads).flatten(2).transpose(1, 2).to(table.dtype)  # [R * S, hw, C]
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

"""Banks of many pathways assembled as tensors, so that a network attends to all of them as one batch.

Source: SAM2Long, arXiv 2410.16268, Sec. 3.3, and SAM 2's memory attention.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2long.method.memory import Reading, SpatialRead
from sam2long.method.modulation import rank_weights, weight_keys
from sam2long.network.devices import moved_once, moved_together
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


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """By what the memories of R rows are weighted and placed: a few numbers, made on the host. None: not needed."""

    weights: Tensor | None  # [R, whole memories]
    older_weights: Tensor | None  # [R, sparse memories]
    pointer_weights: Tensor | None  # [R, m]
    slots: Tensor | None  # [R * sparse memories, 1] int64
    distances: Tensor | None  # [R, m], or [1, m] where all rows agree; int64


def numbers(readings: Sequence[Reading]) -> Numbers:
    """Of readings of one layout."""
    whole, older = _whole(readings[0]), _older(readings[0])
    weights, pointer_weights = key_weights(readings)
    distances = [[read.position for read in row.pointers] for row in readings]
    if all(row == distances[0] for row in distances):
        distances = distances[:1]
    slots = [[row.spatial[at].slot] for row in readings for at in older]
    return Numbers(
        weights=None if weights is None else weights[:, whole],
        older_weights=weights[:, older] if weights is not None and older else None,
        pointer_weights=pointer_weights,
        slots=torch.tensor(slots) if older else None,
        distances=torch.tensor(distances) if distances[0] else None,
    )


def sent(numbers: Sequence[Numbers], device: torch.device) -> list[Numbers]:
    """The same on the device, all in one copy."""
    every = [{field.name: getattr(each, field.name) for field in dataclasses.fields(each)} for each in numbers]
    back = iter(moved_together([one for each in every for one in each.values() if one is not None], device))
    return [Numbers(**{name: None if one is None else next(back) for name, one in each.items()}) for each in every]


def _whole(reading: Reading) -> list[int]:
    return [at for at, read in enumerate(reading.spatial) if read.whole]


def _older(reading: Reading) -> list[int]:
    return [at for at, read in enumerate(reading.spatial) if not read.whole]


def assemble(network: Network, table: Tensor, readings: Sequence[Reading], num_pointers: int, numbers: Numbers) -> Bank:
    """The banks of R rows. Readings must have one layout.

    Args:
        network: that will read the bank.
        table: its `memory_positions`, in the precision of the bank.
        readings: one per row.
        num_pointers: M, which divides the pointers' temporal positions.
        numbers: of the readings, on the device.
    """
    whole, older = _whole(readings[0]), _older(readings[0])
    read = [[row.spatial[at] for at in whole] for row in readings]
    pointers = _pointers(network, readings)  # [R, m * split, C]
    positions = _positions(table, read, _pointer_positions(network, table, numbers.distances, num_pointers))
    memory = _memory(network, read, pointers, positions.dtype)
    if numbers.weights is not None:
        # One number per memory went over, and is spread over its tokens here.
        by_token = [numbers.weights.repeat_interleave(network.memory_tokens, dim=1)]
        if numbers.pointer_weights is not None:
            by_token.append(numbers.pointer_weights.repeat_interleave(split(network), dim=1))
        positions = weight_keys(memory, positions, torch.cat(by_token, dim=1))
    share = readings[0].sparse_share
    return Bank(
        memory,
        positions,
        pointers.shape[1],
        kept=kept(network, share) if share < 1 else None,
        sparse=_sparse(network, table, readings, older, numbers) if older else None,
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


def _pointer_positions(network: Network, table: Tensor, distances: Tensor | None, num_pointers: int) -> Tensor:
    """Positions of the pointers' tokens, [R or 1, n, C]; one row where all agree."""
    positions = None if distances is None else network.pointer_positions(distances, num_pointers)
    if positions is None:
        count, width = 0 if distances is None else distances.shape[1], network.hidden_dim // split(network)
        return table.new_zeros(1, count * split(network), width)
    return positions.repeat_interleave(split(network), dim=1) if split(network) > 1 else positions


def _sparse(
    network: Network, table: Tensor, readings: Sequence[Reading], older: list[int], numbers: Numbers
) -> SparseTokens:
    """The kept tokens of older memories."""
    rows, device, table = len(readings), network.device, table[:, :, 0]  # [slots, n, C]
    reads = [[row.spatial[at] for at in older] for row in readings]
    features = _features(network, reads).flatten(2).transpose(1, 2).to(table.dtype)  # [R * S, hw, C]
    places = torch.stack([read.memory.kept_tokens for row in reads for read in row]).to(device)  # [R*S, layers, n]
    layers = places.shape[1]
    flat = places.flatten(1).unsqueeze(-1)  # [R * S, layers * n, 1]
    memory = features.gather(1, flat.expand(-1, -1, features.shape[2]))
    positions = table[numbers.slots, flat[..., 0]]  # [R * S, layers * n, C]
    if numbers.older_weights is not None:
        by_memory = numbers.older_weights.flatten()
        positions = weight_keys(memory, positions, by_memory[:, None].expand(-1, memory.shape[1]))

    def by_layer(tokens: Tensor) -> Tensor:
        return tokens.unflatten(0, (rows, -1)).unflatten(2, (layers, -1)).transpose(1, 2).flatten(2, 3)

    return SparseTokens(by_layer(memory), by_layer(positions), by_layer(flat)[..., 0])

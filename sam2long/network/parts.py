"""The network as four calls, eager or compiled.

Compiled parts keep their graphs for as long as the predictor lives. Their shapes stand still, so that a GPU can replay
a frame's launches as CUDA graphs: rows come in `bucket`s, the last one repeated to fill them, and memory attention
takes a graph with dynamic shapes until a bank's size has been seen often enough. A test watches that nothing is
compiled once the banks are full. Names relied on in sam2:

  forward_image, sam_mask_decoder, _encode_new_memory    called as they are
  memory_attention.layers, .norm, .pos_enc_at_input      the memory read, layer by layer, so that all pathways of a
  layer._forward_sa, _forward_ca, norm3, linear1,        frame share the first self-attention
    linear2, activation
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

GRAPHS = 16  # per part; torch runs eagerly what would need more
# Its name before torch 2.7.
GRAPH_LIMIT = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
STEADY = 8  # frames with banks of one size, after which that size gets a graph of its own


def bucket(rows: int) -> int:
    """The number of rows that a batch of `rows` is filled up to: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on."""
    power = 1 << (rows - 1).bit_length()
    return next(size for size in (power * 3 // 4, power) if size >= rows)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What of the network is called on every frame."""

    encode: Callable[..., Any]  # forward_image
    attend: Callable[..., Tensor]  # `attend` below, bound to the model's memory attention
    decode: Callable[..., Any]  # sam_mask_decoder
    write: Callable[..., Any]  # _encode_new_memory

    @classmethod
    def eager(cls, model: SAM2Base) -> Parts:
        def read(*args: Any) -> Tensor:
            return attend(model.memory_attention, *args)

        return cls(model.forward_image, read, model.sam_mask_decoder, model._encode_new_memory)

    @classmethod
    def compiled(cls, model: SAM2Base, backend: str | Callable = "inductor") -> Parts:
        """The same through torch.compile, on first use; what cannot be compiled stays eager, with one warning."""
        eager = cls.eager(model)
        replayed = backend == "inductor" and model.device.type == "cuda"
        return cls(
            Compiled(eager.encode, "the image encoder", backend, replayed=replayed),
            Steadied(eager.attend, "memory attention", backend, replayed=replayed),
            Compiled(eager.decode, "the mask decoder", backend, replayed=replayed),
            Compiled(eager.write, "the memory encoder", backend, replayed=replayed),
        )

    @property
    def rows(self) -> Callable[[int], int]:
        """How many rows a batch is filled up to."""
        return bucket if isinstance(self.decode, Compiled) else int


class Compiled:
    """A function through torch.compile, or eager from the first failure on.

    Args:
        function: of tensors. name: for the warning.
        backend: torch.compile's.
        dynamic: one graph for many shapes.
        replayed: its launches are recorded once per shape as a CUDA graph and replayed; results are cloned, since the
            next replay overwrites them.
    """

    def __init__(
        self, function: Callable, name: str, backend: str | Callable, dynamic: bool = False, replayed: bool = False
    ) -> None:
        self.function = function
        self.name = name
        self.replayed = replayed
        mode = "reduce-overhead" if replayed else None
        self._compiled: Callable | None = torch.compile(function, backend=backend, dynamic=dynamic, mode=mode)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            return self.function(*args, **kwargs)
        try:
            with torch._dynamo.config.patch({GRAPH_LIMIT: GRAPHS}):
                if not self.replayed:
                    return self._compiled(*args, **kwargs)
                torch.compiler.cudagraph_mark_step_begin()
                return tree_map_only(Tensor, Tensor.clone, self._compiled(*args, **kwargs))
        except torch._dynamo.exc.TorchDynamoException as error:
            self._compiled = None
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"{self.name} cannot be compiled here and runs eagerly ({reason})", stacklevel=2)
            return self.function(*args, **kwargs)


class Steadied(Compiled):
    """Memory attention: a graph for each size of bank that has been read `STEADY` times, and one for all others."""

    def __init__(self, function: Callable, name: str, backend: str | Callable, replayed: bool) -> None:
        super().__init__(function, name, backend, replayed=replayed)
        self._filling = Compiled(function, name, backend, dynamic=True)
        self.seen: Counter[tuple[int, ...]] = Counter()

    def __call__(
        self, current: Tensor, position: Tensor, memory: Tensor, memory_pos: Tensor, pointer_tokens: int
    ) -> Tensor:
        args = current, position, memory, memory_pos, pointer_tokens
        self.seen[size := (*memory.shape, len(memory_pos), pointer_tokens)] += 1
        return super().__call__(*args) if self.seen[size] > STEADY else self._filling(*args)


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

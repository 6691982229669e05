"""The network as four calls, eager or compiled.

Compiled parts keep their graphs for as long as the predictor lives. Numbers of rows and of memory tokens are dynamic,
so that a few graphs serve all frames: torch makes one for a single row, one for several, and the like; a test watches
that nothing is compiled once the banks are full. Names relied on in sam2:

  forward_image, sam_mask_decoder, _encode_new_memory    called as they are
  memory_attention.layers, .norm, .pos_enc_at_input      the memory read, layer by layer, so that all pathways of a
  layer._forward_sa, _forward_ca, norm3, linear1,        frame share the first self-attention
    linear2, activation
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

GRAPHS = 16  # per part; torch runs eagerly what would need more
# Its name before torch 2.7.
GRAPH_LIMIT = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"


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
        return cls(
            Compiled(eager.encode, "the image encoder", backend, dynamic=False),
            Compiled(eager.attend, "memory attention", backend, dynamic=True),
            Compiled(eager.decode, "the mask decoder", backend, dynamic=True),
            Compiled(eager.write, "the memory encoder", backend, dynamic=True),
        )


class Compiled:
    """A function through torch.compile, or eager from the first failure on."""

    def __init__(self, function: Callable, name: str, backend: str | Callable, dynamic: bool) -> None:
        self.function = function
        self.name = name
        self._compiled: Callable | None = torch.compile(function, backend=backend, dynamic=dynamic)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            return self.function(*args, **kwargs)
        try:
            with torch._dynamo.config.patch({GRAPH_LIMIT: GRAPHS}):
                return self._compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self._compiled = None
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"{self.name} cannot be compiled here and runs eagerly ({reason})", stacklevel=2)
            return self.function(*args, **kwargs)


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

"""The network's calls through torch.compile.

Compiled parts keep their graphs for as long as the predictor lives. Their shapes stand still, so that a GPU can replay
a frame's launches as CUDA graphs: rows come in `bucket`s, the last one repeated to fill them, and memory attention
takes a graph with dynamic shapes until a bank's size has been seen often enough. A test watches that nothing is
compiled once the banks are full.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from sam2long.network.sam2 import Parts

GRAPHS = 16  # per part; torch runs eagerly what would need more
STEADY = 8  # frames with banks of one size, after which that size gets a graph of its own


def bucket(rows: int) -> int:
    """The number of rows that a batch of `rows` is filled up to: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on."""
    power = 1 << (rows - 1).bit_length()
    return next(size for size in (power * 3 // 4, power) if size >= rows)


def compiled(parts: Parts, device: torch.device, backend: str | Callable = "inductor") -> Parts:
    """The same parts through torch.compile, on first use; what cannot be compiled stays eager, with one warning."""
    replayed = backend == "inductor" and device.type == "cuda"
    return replace(
        parts,
        encode=Compiled(parts.encode, "the image encoder", backend, replayed=replayed),
        attend=Steadied(parts.attend, "memory attention", backend, replayed=replayed),
        decode=Compiled(parts.decode, "the mask decoder", backend, replayed=replayed),
        write=Compiled(parts.write, "the memory encoder", backend, replayed=replayed),
        filled_up=bucket,
        encodes_alone=True,
    )


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
            with torch._dynamo.config.patch({_graph_limit(): GRAPHS}):
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


def _graph_limit() -> str:
    """What torch calls it, asked when something is compiled: torch._dynamo loads Triton, whose LLVM crashes programs
    that draw with Mesa's (napari), and takes a second."""
    return "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # before 2.7

"""Weights of the memories: the more visible the object was, the louder its memory. Tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_weights(object_logits: Tensor, low: float = 0.95, high: float = 1.05) -> Tensor:
    """Spread attention weights over memories by the rank of their object score.

    The lowest logit gets `low`, the highest `high`, the rest evenly spaced; ties keep input order.
    A single memory gets `low`: a linspace of one point, as in the released program. It is the caller
    who leaves everything unweighted while there is only one *spatial* memory.

    Args:
        object_logits: [B, M] floating, unitless logits; B rows, M >= 1 memories.
        low, high: weight of the worst and the best memory; 0 < low <= high.
    Returns:
        [B, M], same dtype and device.
    Raises:
        ValueError: wrong rank, no memories, or bounds out of order.
    Source: SAM2Long, arXiv 2410.16268, Sec. 3.3.
    """
    if object_logits.dim() != 2 or object_logits.shape[1] == 0:
        raise ValueError(f"object_logits has shape {tuple(object_logits.shape)}; expected [B, M] with M >= 1")
    if not 0 < low <= high:
        raise ValueError(f"weights ({low}, {high}) are out of order; expected 0 < low <= high")
    order = object_logits.argsort(dim=1, stable=True)  # [B, M] worst first
    ladder = torch.linspace(low, high, object_logits.shape[1], dtype=object_logits.dtype, device=object_logits.device)
    return torch.empty_like(object_logits).scatter_(1, order, ladder.expand_as(order))


def weight_keys(memory: Tensor, memory_pos: Tensor, token_weights: Tensor) -> Tensor:
    """A position encoding that makes attention see weighted keys and untouched values.

    sam2's memory attention forms keys from `memory + memory_pos` and values from `memory`, so the
    position w * (memory + memory_pos) - memory weights the keys' input before the key projection and
    before RoPE, in every layer, with no layer patched.

    Args:
        memory: [B, L, C] memory tokens.
        memory_pos: [B or 1, L, C] their position encodings.
        token_weights: [B, L] one weight per token.
    Returns:
        [B, L, C] the position encoding to pass instead of `memory_pos`.
    Source: SAM2Long, arXiv 2410.16268, Sec. 3.3.
    """
    return (token_weights.unsqueeze(-1) * (memory + memory_pos)).sub_(memory)

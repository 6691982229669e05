"""Whether a network can compute in float16: a frame is prompted, remembered and read, and every number is looked at.

GPUs before NVIDIA's Ampere have no fast bfloat16. float16 has its precision and more, but ends at 65,504, and whether a
network's activations stay below that only its weights tell.
"""

from __future__ import annotations

import torch

from sam2long.errors import StateError
from sam2long.method import memory
from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory
from sam2long.network.batched import Batched
from sam2long.network.devices import moved
from sam2long.network.protocol import Network


def is_finite_in(dtype: torch.dtype, network: Network) -> bool:
    """Whether a frame of noise, the harshest of pictures, goes through all steps with finite numbers."""
    batched, side = Batched(network, dtype, frames_per_pass=1), network.image_size
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2
    middle, positive = torch.tensor([[[side / 2, side / 2]]]), torch.tensor([[1]], dtype=torch.int32)
    click = moved(middle, network.device), moved(positive, network.device)
    rules = network.rules(num_frames=None)
    with batched.running():
        features = batched.encode(moved(noise, network.device))[0]
        output = batched.prompt(features, points=click)
        stored = FrameMemory(
            time=0,
            mask_features=batched.remember_prompt(features, output),
            object_ptr=output.object_ptr,
            iou=1.0,
            object_logit=PROMPTED_LOGIT,
        )
        reading = memory.read(1, (), {0: stored}, rules)
        try:
            proposals = batched.propose(features, [reading], rules.num_pointers)
        except StateError:
            return False
        (written,) = batched.remember(features, proposals, [(0, 0)])
        seen = output.mask, stored.mask_features, proposals.masks, written.mask_features, written.object_ptr
        return all(tensor is not None and bool(tensor.isfinite().all()) for tensor in seen)

"""A module that holds a network and leaves it as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sam2long.errors import ConfigError, ModelError
from sam2long.network import sam2, transformers
from sam2long.network.batched import ROW_BUDGET, Batched
from sam2long.network.compiled import compiled
from sam2long.network.devices import fast_bfloat16
from sam2long.network.install import NEEDED
from sam2long.network.options import check_model_options
from sam2long.network.precision import is_finite_in
from sam2long.network.protocol import Network
from sam2long.network.transformers_loading import frame_treatment

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HoldsNetwork(nn.Module):
    """A network in the precision, and compiled or not, as its owner wants it; its public attributes are found here.

    Args:
        network: in eval mode: a model of sam2, of a package shaped like it, or a video model of transformers.
        dtype: "auto", "float32", "bfloat16" or "float16".
        processor: of a model of transformers, which says how frames are resized and normalised; None: as its own does.
    Raises:
        ModelError: not a network that can be used, or in training mode.
        ConfigError: a precision that does not exist, or that the network does not have.
    """

    def __init__(self, network: nn.Module, dtype: str = "auto", processor: Any = None) -> None:
        super().__init__()
        if dtype != "auto" and dtype not in DTYPES:
            raise ConfigError(f'dtype is {dtype!r}; expected "auto", "float32", "bfloat16" or "float16"')
        if network.training:
            raise ModelError(f"the {type(network).__name__} is in training mode; call its eval() first: it is shared")
        self.dtype = dtype
        self.row_budget = ROW_BUDGET  # bytes; lower it when a GPU is too small for all pathways in one batch
        # Frames of a stored video that go through the image encoder at a time. None: one, or several of up to
        # 256 x 256 where that gives the same bits and nothing is compiled. On a GPU more may be faster, and may change
        # the last bits.
        self.frames_per_pass: int | None = None
        self.fill_hole_area: int = getattr(network, "fill_hole_area", 0)
        self.non_overlap_masks: bool = getattr(network, "non_overlap_masks", False)
        self._parts: sam2.Parts | None = None  # None: eager
        self._float16_is_safe: dict[torch.device, bool] = {}  # once it has been tried
        self._frames: dict[str, Any] | None = None  # of a model of transformers: how frames are made ready
        if all(hasattr(network, name) for name in NEEDED):
            check_model_options(network)
            network = sam2.without_graphs(network)
        elif (lacks := transformers.lacking(network)) is None:
            self._frames = frame_treatment(network, processor)
        else:
            raise ModelError(f"{type(network).__module__}.{type(network).__name__} has no {lacks}; expected a model of "
                             "sam2, or a Sam2VideoModel, an EdgeTamVideoModel or a Sam3TrackerVideoModel")  # fmt: skip
        self.network = network
        self.train(False)
        if self._weights_dtype() not in (torch.float32, self.compute_dtype()):
            raise ConfigError(
                f"dtype is {dtype!r}, and the model's weights are {str(self._weights_dtype()).removeprefix('torch.')}; "
                'load them in float32, or leave dtype at "auto"'
            )

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def image_size(self) -> int:
        """S, the side of the network's input."""
        return int(self.network.image_size)

    def compute_dtype(self) -> torch.dtype:
        """What the network computes in on the device that it is on now."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        if (weights := self._weights_dtype()) != torch.float32:
            return weights
        if self.device.type != "cuda":
            return torch.float32
        if fast_bfloat16(self.device):
            return torch.bfloat16
        if self.device not in self._float16_is_safe:
            self._float16_is_safe[self.device] = is_finite_in(torch.float16, self.steps())
        return torch.float16 if self._float16_is_safe[self.device] else torch.float32

    def _weights_dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.network.parameters() if parameter.is_floating_point())

    def compile_model(self) -> None:
        """Run the network through torch.compile, for every state made from now on.

        The first frames then take minutes; what cannot be compiled here runs eagerly, after one warning.
        """
        if self._frames is not None:
            raise ConfigError("compile is not available for models of transformers; leave it out, or use a sam2 model")
        self._parts = compiled(sam2.Parts.of(self.network), self.device)

    def steps(self) -> Network:
        """The network as `Network`; a predictor of a third kind overrides this."""
        if self._frames is not None:
            return transformers.TransformersNetwork(self.network, **self._frames)
        return sam2.Sam2Network(self.network, self._parts)

    def batched(self) -> Batched:
        """The network for any number of rows, with counters of its own: one for each state."""
        weights = self._weights_dtype()
        if self._frames is None and weights != torch.float32 and self.device.type == "cpu":
            raise ConfigError(
                f"the model's weights are {str(weights).removeprefix('torch.')}, which sam2's models do not compute in "
                'on a CPU; call its float(), and give the precision as dtype="float16" or "bfloat16"'
            )
        return Batched(self.steps(), self.compute_dtype(), self.row_budget, self.frames_per_pass)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The network's weights, under the names that they have there."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Weights into the network, by its own names; returns what torch returns."""
        return self.network.load_state_dict(state_dict, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What is not here is the network's, as far as it is public."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network" or name.startswith("_"):
                raise
        return getattr(self.network, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What only the network has is set there: a setting of sam2's would do nothing here."""
        network = self.__dict__.get("_modules", {}).get("network")
        here = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if network is None or here or not hasattr(network, name):
            super().__setattr__(name, value)
        else:
            setattr(network, name, value)

    def __delattr__(self, name: str) -> None:
        """What was set on the network is taken away there."""
        network = self.__dict__.get("_modules", {}).get("network")
        if network is not None and name not in self.__dict__ and name in vars(network):
            delattr(network, name)
        else:
            super().__delattr__(name)

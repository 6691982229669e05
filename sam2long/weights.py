"""Checkpoints: their names, where they are found, and whether they fit a config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam2long.errors import ModelError

CHECKPOINT_DIR_VARIABLE = "SAM2LONG_CHECKPOINTS"
MODELS_DIR = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One of Meta's released checkpoints, or the embedded one."""

    name: str  # the short name
    config: str  # as sam2 names it, or a path
    file: str  # file name of the weights
    hub_id: str | None  # Hugging Face repository; None: in the package
    width: int  # Hiera's embed_dim and
    blocks: int  # number of blocks, by which weights are told apart

    def local_path(self) -> Path | None:
        """Where the weights lie on this machine, or None."""
        if self.hub_id is None:
            path = MODELS_DIR / self.file
            return path if path.is_file() else None
        for folder in checkpoint_dirs():
            if (folder / self.file).is_file():
                return folder / self.file
        return self._in_hub_cache()

    def _in_hub_cache(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.hub_id, self.file)
        return Path(found) if isinstance(found, str) else None

    def fetch(self) -> Path:
        """The weights, downloaded from the hub when they are not here yet.

        Raises:
            ModelError: not here and not to be had; the message says how to get them.
        """
        if (path := self.local_path()) is not None:
            return path
        if self.hub_id is None:
            raise ModelError(f"the package lacks its own weights {self.file}; install sam2long again")
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repo_id=self.hub_id, filename=self.file))
        except Exception as error:  # the hub's client raises errors of many libraries; all mean "not to be had"
            raise ModelError(
                f"no weights for {self.name}: {self.file} is neither in ./checkpoints, ${CHECKPOINT_DIR_VARIABLE} nor "
                f"the Hugging Face cache, and {self.hub_id} could not be downloaded ({type(error).__name__}); put the "
                'file there or pass its path as the checkpoint, or use the model "nano", which needs no download'
            ) from error


def _released(version: str, size: str, letter: str, width: int, blocks: int) -> Checkpoint:
    return Checkpoint(
        name=f"sam{version}-{size}",
        config=f"configs/sam{version}/sam{version}_hiera_{letter}.yaml",
        file=f"sam{version}_hiera_{size.replace('-', '_')}.pt",
        hub_id=f"facebook/sam{version}-hiera-{size}",
        width=width,
        blocks=blocks,
    )


_SIZES = (("tiny", "t", 96, 12), ("small", "s", 96, 16), ("base-plus", "b+", 112, 24), ("large", "l", 144, 48))

CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint("nano", str(MODELS_DIR / "nano.yaml"), "nano.safetensors", None, 0, 0),
        *(_released(version, *size) for version in ("2.1", "2") for size in _SIZES),
    )
}
BY_HUB_ID = {checkpoint.hub_id: checkpoint for checkpoint in CHECKPOINTS.values() if checkpoint.hub_id}


def checkpoint_dirs() -> list[Path]:
    """Folders in which checkpoints are looked for."""
    extra = os.environ.get(CHECKPOINT_DIR_VARIABLE)
    return [*([Path(extra)] if extra else []), Path("checkpoints")]


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """A state dict from sam2's .pt (under "model", or bare) or from .safetensors; float16 becomes float32.

    Raises:
        ModelError: no such file, or not weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}; expected a .pt or .safetensors file with sam2 weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a file that is not theirs
        raise ModelError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from error
    weights = weights.get("model", weights) if isinstance(weights, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(f"{path} holds no state dict; expected sam2 weights, under the key 'model' or bare")
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def load_weights(model: torch.nn.Module, path: str | os.PathLike, config: str) -> None:
    """Put weights into a model, all of them or none.

    Raises:
        ModelError: they do not fit; the message names the config that they do fit when it is known.
    """
    weights = read_weights(path)
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    misshapen = [name for name in expected if name in weights and expected[name].shape != weights[name].shape]
    if missing or unknown or misshapen:
        details = ", ".join(
            f"{len(names)} {what} (first: {names[0]})"
            for names, what in ((missing, "missing"), (unknown, "unknown"), (misshapen, "of another shape"))
            if names
        )
        hint = f"; these look like the weights of {guess.config}" if (guess := recognise(weights)) else ""
        raise ModelError(f"the weights {path} do not fit the config {config}: {details}{hint}")
    model.load_state_dict(weights)


def recognise(weights: Mapping[str, Tensor]) -> Checkpoint | None:
    """Which released checkpoint weights belong to, by their shapes."""
    embedding = weights.get("image_encoder.trunk.pos_embed")
    if embedding is None:
        return None
    blocks = {name.split(".")[3] for name in weights if name.startswith("image_encoder.trunk.blocks.")}
    version = "sam2.1" if "no_obj_embed_spatial" in weights else "sam2"
    for checkpoint in CHECKPOINTS.values():
        if (checkpoint.width, checkpoint.blocks) == (embedding.shape[1], len(blocks)) and checkpoint.name.rsplit(
            "-", 2 if checkpoint.name.endswith("plus") else 1
        )[0] == version:
            return checkpoint
    return None

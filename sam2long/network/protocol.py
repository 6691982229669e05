"""What tracking asks of a network, whatever package it comes from: records, and the steps that a back end brings.

`sam2.Sam2Network` brings them for sam2's package, `transformers.TransformersNetwork` for transformers'; `Batched` calls
them for any number of rows. docs/backends.md says in words what a third needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sam2long.method.memory import BankRules
from sam2long.method.tree import Verdict

NO_OBJ_SCORE = -1024.0  # the logit of every pixel of an object that is not there
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Points = tuple[Tensor, Tensor]  # coordinates [1, n, 2] in model pixels, labels [1, n] int32
Decoded = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """What the image encoder says of one frame, for any number of rows."""

    levels: list[Tensor]  # finest first, each [hw, 1, C]
    positions: list[Tensor]  # the same shapes
    sizes: list[tuple[int, int]]

    def rows(self, count: int) -> list[Tensor]:
        """All levels as views for `count` rows, each [hw, count, C]."""
        return [level.expand(-1, count, -1) for level in self.levels]

    def maps(self, level: int, count: int) -> Tensor:
        """One level as a map: [count, C, h, w], a view."""
        feature = self.levels[level]
        return feature.permute(1, 2, 0).reshape(1, feature.shape[2], *self.sizes[level]).expand(count, -1, -1, -1)

    def fine_maps(self, count: int) -> list[Tensor]:
        """All levels but the coarsest, as maps."""
        return [self.maps(level, count) for level in range(len(self.levels) - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """What R rows attend to. L: tokens that every layer reads; n: tokens kept of a sparse memory, other ones per layer.

    Tokens are in the order: whole spatial memories, [sparse ones, which are apart], object pointers.
    """

    memory: Tensor  # [R, L, C]
    positions: Tensor  # [R, L, C], already weighted; [1, L, C] where all rows have the same
    pointer_tokens: int  # the last so many of L; they have no place in the frame
    kept: int | None = None  # n, of a memory that is not the newest any more; None: memories stay whole
    sparse: SparseTokens | None = None
    newest: slice | None = None  # where the newest memory stands in L, when it is whole and not a prompted one


@dataclass(frozen=True, slots=True, eq=False)
class SparseTokens:
    """Kept tokens of S older memories for each of the layers."""

    memory: Tensor  # [R, layers, S * n, C]
    positions: Tensor  # [R, layers, S * n, C], already weighted
    places: Tensor  # [R, layers, S * n] int64, token index in the frame


Box = tuple[int, int, int, int]  # in pixels of a mask: first column, first row, and those behind the last


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """K mask candidates for each of R rows; U of them are different, and computed.

    Tensors stay on the device; the verdicts are plain numbers.
    """

    masks: Tensor  # [U, K, 4h, 4w] float32 logits; constant NO_OBJ_SCORE where the object is absent
    tokens: Tensor  # [U, K or 1, D] decoder tokens that object pointers are made of
    object_logits: Tensor  # [U, 1]
    places: list[int]  # of each row, where it stands in the tensors
    verdicts: list[Verdict]  # of each row
    kept_tokens: list[Tensor | None]  # of each row's newest memory, [layers, n], when memories are read sparsely
    boxes: list[tuple[Box, ...]]  # of each row, around its K masks; empty when nobody has asked

    def at(self, kept: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Indices into the tensors of (row, k) pairs, on the device."""
        # Of numbers that are made there: a list of indices would be a copy to the device.
        numbers = torch.arange(max(self.masks.shape[:2]), device=self.masks.device)
        return (
            torch.stack([numbers[self.places[row]] for row, _ in kept]),
            torch.stack([numbers[k] for _, k in kept]),
        )

    def tokens_of(self, rows: Tensor, ks: Tensor) -> Tensor:
        """[U, D] tokens of candidates, by what `at` gave; all of a row may share one."""
        return self.tokens[rows, ks] if self.tokens.shape[1] > 1 else self.tokens[rows, 0]


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """One kept candidate, ready to become a memory."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    mask_features: Tensor  # [1, C, h, w], or [1, C, n] where memories are compressed into n tokens
    object_ptr: Tensor  # [1, D]


@dataclass(frozen=True, slots=True, eq=False)
class PromptOutput:
    """What the network makes of a prompt."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    object_ptr: Tensor  # [1, D]
    object_logit: Tensor  # [1, 1]


class Network(Protocol):
    """What a back end brings. S: side of the input; h w: the coarsest feature map; D, C: widths, see below.

    Everything is called within `Batched.running`, and nothing changes the module behind it.
    """

    mean: tuple[float, float, float]  # of the pixels that the encoder was trained on, in 0..1
    std: tuple[float, float, float]
    resize: str  # how frames are brought to the input's size: "bicubic" or "bilinear"

    @property
    def device(self) -> torch.device: ...

    @property
    def image_size(self) -> int:
        """S."""

    @property
    def hidden_dim(self) -> int:
        """D, the width of image features and object pointers."""

    @property
    def mem_dim(self) -> int:
        """C, the width of spatial memories."""

    @property
    def mask_size(self) -> int:
        """Side of the low-resolution masks, which are what the prompt encoder takes as a mask prompt."""

    @property
    def queries(self) -> int:
        """Tokens of a frame, h * w."""

    @property
    def memory_tokens(self) -> int:
        """Tokens of a spatial memory: h * w, or fewer where memories are compressed."""

    @property
    def absent_alike(self) -> bool:
        """Whether the same is remembered of every object that is not there."""

    @property
    def telling_weights(self) -> Tensor:
        """A parameter that tells weights apart: trained ones differ in every one."""

    @property
    def encodes_alone(self) -> bool:
        """Whether the encoder is compiled: another number of frames would be compiled anew, which takes minutes."""

    def filled_up(self, rows: int) -> int:
        """How many rows a batch is filled up to, the last one repeated."""

    def rules(self, num_frames: int | None) -> BankRules:
        """How the model keeps and reads a bank, by itself. num_frames: of the video, None for an endless stream."""

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Image features of frames [N, 3, S, S], normalised float32."""

    def memory_positions(self, dtype: torch.dtype) -> Tensor:
        """Positions of a spatial memory's n tokens for each temporal slot, [slots, n, 1, C]."""

    def pointer_positions(self, steps: Tensor, num_pointers: int) -> Tensor | None:
        """Of temporal distances [...], their positions [..., C]; None: pointers have none."""

    def read(self, features: FrameFeatures, bank: Bank) -> tuple[Tensor, Tensor | None]:
        """Image features that have read a bank of R rows, [R, D, h, w].

        Also, where `bank.kept` says so, which tokens of the newest memory mattered to each layer, [R, layers, n] int64.
        """

    def decode(self, features: FrameFeatures, conditioned: Tensor) -> Decoded:
        """Masks [R, K, 4h, 4w], IoUs [R, K], tokens [R, K or 1, D], object logits [R, 1]."""

    def write(
        self, features: FrameFeatures, candidates: Tensor, ks: Tensor, tokens: Tensor, object_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Spatial memories [U, C, ...] and pointers [U, D] of kept candidates.

        Args:
            candidates: [U, K, 4h, 4w] logits, of which `ks` [U] are kept. tokens: [U, D]. object_logits: [U, 1].
        """

    def prompt(
        self,
        features: FrameFeatures,
        *,
        points: Points | None,
        mask: Tensor | None,
        previous: Tensor | None,
        conditioned: Tensor | None,
    ) -> PromptOutput:
        """The network's own prompt handling on one frame for one object.

        Args:
            points: clicks and box corners in model pixels; or
            mask: [1, 1, S, S] float 0/1.
            previous: [1, 1, 4h, 4w] mask logits that the new clicks refine.
            conditioned: [1, D, h, w] features that have read memories, when the frame has been tracked before.
        """

    def write_prompt(self, features: FrameFeatures, output: PromptOutput, mask: Tensor | None) -> Tensor:
        """The spatial memory of a prompted frame, [1, C, ...]. mask: bool [S, S], when that was given."""

"""The model, driven through sam2's own methods, and its weights on disk."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from nano.prompts import box_points, click_points

MODELS = Path(__file__).resolve().parents[2] / "sam2long" / "models"


class ExpandedPosition(nn.Module):
    """sam2's position encoding without its copy per image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:1]).expand(x.shape[0], -1, -1, -1)


def build(config: Path) -> nn.Module:
    return instantiate(OmegaConf.load(config).model, _recursive_=True)


def set_size(model: nn.Module, size: int) -> None:
    """Make a built model take frames of another size, as its YAML's `image_size` would."""
    grid = size // model.backbone_stride
    encoder = model.sam_prompt_encoder
    model.image_size, model.sam_image_embedding_size = size, grid
    encoder.input_image_size, encoder.image_embedding_size = (size, size), (grid, grid)
    encoder.mask_input_size = (4 * grid, 4 * grid)


def quick_on_cpu(trunk: nn.Module) -> None:
    """The same trunk in the layout and precision in which a CPU is fastest: float32 when it learns, else as set."""
    inner = trunk.to(memory_format=torch.channels_last).forward

    def forward(images: Tensor) -> list[Tensor]:
        learns = next(trunk.parameters()).requires_grad
        with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not learns):
            return inner(images.contiguous(memory_format=torch.channels_last))

    trunk.forward = forward


class Tracker:
    """Drives sam2's own methods over a batch of rows (objects), as its predictor does at inference, with gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.raw: tuple[Tensor, ...] = ()
        neck = model.image_encoder.neck
        if not isinstance(neck.position_encoding, ExpandedPosition):
            neck.position_encoding = ExpandedPosition(neck.position_encoding)
        inner = model.sam_mask_decoder.predict_masks

        def keep(**inputs):
            """All four masks, IoUs, tokens and object logits: before sam2 blanks the masks of absent objects."""
            self.raw = inner(**inputs)
            return self.raw

        model.sam_mask_decoder.predict_masks = keep

    def close(self) -> None:
        del self.model.sam_mask_decoder.predict_masks  # back to the class's own

    def encode(self, images: Tensor):
        """[N, 3, H, W] normalised -> features and positions, [hw, N, C] per level."""
        out = self.model.forward_image(images)
        _, feats, pos, sizes = self.model._prepare_backbone_features(out)
        return feats, [p[:, :1] for p in pos], sizes

    def prompt(self, feats, sizes, masks: Tensor, kinds: Tensor, rng: random.Random, jitter: float = 0.1):
        """First frame. masks: [R, H, W] bool; kinds: [R], an index into PROMPTS. Returns an output and losses' raw."""
        model = self.model
        parts, raws = [], []
        for kind in (0, 1, 2):
            at = (kinds == kind).nonzero()[:, 0]
            if not len(at):
                continue
            level = [f[:, at] for f in feats]
            top, high = self.grids(level, sizes)
            target = masks[at, None].float()
            if kind == 0:
                out = model._use_mask_as_output(top, high, target)
                raws.append((at, *self.raw[:2], self.raw[3], 1))  # reading the mask back is a first lesson
            else:
                points, labels = box_points(masks[at], rng, jitter) if kind == 1 else click_points(masks[at], rng)
                out = self.point_at(top, high, points, labels, multimask=kind == 2)
                raws.append((at, *self.raw[:2], self.raw[3], 3 if kind == 2 else 1))
            high_masks = torch.where(out[4] > 0, 10.0, -10.0)  # sam2's builder binarises prompted masks for memory
            parts.append((at, high_masks, out[5], out[6], out[3]))
        order = torch.cat([p[0] for p in parts]).argsort()
        high_masks, ptr, logit, low = (torch.cat([p[i] for p in parts])[order] for i in (1, 2, 3, 4))
        return {"high": high_masks, "obj_ptr": ptr, "logit": logit, "low": low}, raws

    @staticmethod
    def grids(feats: list[Tensor], sizes) -> tuple[Tensor, list[Tensor]]:
        """What the decoder looks at, [R, C, h, w]: the top level, and those of higher resolution."""
        *high, top = [f.permute(1, 2, 0).unflatten(2, s) for f, s in zip(feats, sizes, strict=True)]
        return top, high

    def point_at(self, top, high, points: Tensor, labels: Tensor, multimask: bool, masks: Tensor | None = None):
        """A frame that nothing is remembered of, with points, and perhaps what was said before, [R, 1, 4h, 4w] logits.

        top: [R, C, h, w]; points: [R, N, 2] pixels.
        """
        return self.model._forward_sam_heads(
            backbone_features=top + self.model.no_mem_embed[0, 0][:, None, None],
            point_inputs={"point_coords": points, "point_labels": labels},
            mask_inputs=masks,
            high_res_features=high,
            multimask_output=multimask,
        )

    def remember(self, out: dict, feats, sizes, use: Tensor | None = None) -> dict:
        masks = out["high"] if use is None else use
        features, position = self.model._encode_new_memory(feats, sizes, masks, out["logit"], False)
        return {"maskmem_features": features, "maskmem_pos_enc": position, "obj_ptr": out["obj_ptr"]}

    def track(self, frame: int, bank: dict, feats, pos, sizes) -> dict:
        """A later frame, from memory alone. `top` and `high_res` let `correct` look at it again."""
        rows = feats[-1].shape[1]
        top = self.model._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=False,
            current_vision_feats=feats[-1:],
            current_vision_pos_embeds=[pos[-1].expand(-1, rows, -1)],
            feat_sizes=sizes[-1:],
            output_dict=bank,
            num_frames=1 << 20,
        )
        high = [f.permute(1, 2, 0).unflatten(2, s) for f, s in zip(feats[:-1], sizes[:-1], strict=True)]
        out = self.model._forward_sam_heads(backbone_features=top, high_res_features=high, multimask_output=True)
        return {"all": out[0], "ious": out[2], "low": out[3], "high": out[4], "obj_ptr": out[5], "logit": out[6],
                "top": top, "high_res": high}  # fmt: skip

    def correct(self, out: dict, points: Tensor, labels: Tensor) -> dict:
        """The same frame again with clicks [R, n, 2] and the mask so far, as sam2's predictor corrects."""
        again = self.model._forward_sam_heads(
            backbone_features=out["top"],
            point_inputs={"point_coords": points, "point_labels": labels},
            mask_inputs=out["low"].detach().clamp(-32, 32),
            high_res_features=out["high_res"],
            multimask_output=points.shape[1] == 1,
        )
        return out | {"low": again[3], "high": again[4], "obj_ptr": again[5], "logit": again[6]}


def load(weights: Path, device: str = "cpu") -> nn.Module:
    model = build(MODELS / "nano.yaml")
    model.load_state_dict(read_weights(weights))
    return model.to(device).eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {k: v.float() for k, v in load_file(path).items()}


def clean_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if "position_encoding.inner" not in k}


def export(model: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_suffix(".tmp")
    save_file({k: v.detach().half().contiguous() for k, v in clean_state(model).items()}, spare)
    spare.replace(path)

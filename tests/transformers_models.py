"""transformers' video models, very small and with lively random weights; and nano's weights as one of them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from sam2long import SAM2LongVideoPredictor
from tests.fakes import SIDE

KINDS = ("sam2", "edgetam", "sam3")
HIERA = {
    "hidden_size": 16, "image_size": [SIDE, SIDE], "blocks_per_stage": [1, 2, 3, 1],
    "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 4, 2], "global_attention_blocks": [4, 5],
    "window_positional_embedding_background_size": [4, 4], "model_type": "sam2_hiera_det_model",
}  # fmt: skip
WIDTH = 128  # of image features and pointers; spatial memories have 64 in all of them


def _sizes(side: int, patch: int = 16) -> list[list[int]]:
    return [[scale * side // patch] * 2 for scale in (4, 2, 1)]


def _shared(side: int, patch: int = 16) -> dict:
    """What the three configs have in common."""
    coarse = side // patch
    return {
        "image_size": side,
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": side, "patch_size": patch},
        "mask_decoder_config": {
            "hidden_size": WIDTH, "mlp_dim": 256, "iou_head_hidden_dim": 64, "num_attention_heads": 4,
            "dynamic_multimask_via_stability": False,
        },
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 2,
        "memory_attention_rope_feat_sizes": [coarse, coarse],
        "memory_encoder_hidden_size": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 128,
        "memory_fuser_layer_scale_init_value": 0.1,
        "mask_downsampler_embed_dim": WIDTH,
    }  # fmt: skip


def config_of(kind: str):
    import transformers

    if kind == "sam3":
        vit = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 16, "window_size": 2, "global_attn_indexes": [1],
            "pretrain_image_size": SIDE, "model_type": "sam3_vit_model",
        }  # fmt: skip
        vision = transformers.Sam3VisionConfig(
            backbone_config=vit, fpn_hidden_size=WIDTH, backbone_feature_sizes=_sizes(SIDE)
        )
        return transformers.Sam3TrackerVideoConfig(
            vision_config=vision, memory_attention_feed_forward_hidden_size=128, **_shared(SIDE)
        )
    vision = transformers.Sam2VisionConfig(
        backbone_config=HIERA, backbone_channel_list=[128, 64, 32, 16], backbone_feature_sizes=_sizes(SIDE),
        fpn_hidden_size=WIDTH,
    )  # fmt: skip
    if kind == "edgetam":
        return transformers.EdgeTamVideoConfig(
            vision_config=vision, memory_attention_mlp_hidden_size=128, memory_attention_rope_k_sizes=[2, 2],
            perceiver_resampler_num_latents=6, perceiver_resampler_num_latents_2d=4, **_shared(SIDE),
        )  # fmt: skip
    return transformers.Sam2VideoConfig(
        vision_config=vision, memory_attention_feed_forward_hidden_size=128, **_shared(SIDE)
    )


LIVELY = {"sam2": (1, 6.0), "edgetam": (9, 12.0), "sam3": (5, 6.0)}  # seed, and what is added to the object logit


def model_of(kind: str, seed: int | None = None, presence: float | None = None) -> nn.Module:
    """A tiny random model whose IoUs differ, whose objects come and go, and whose masks move."""
    import transformers

    name = {"sam2": "Sam2VideoModel", "edgetam": "EdgeTamVideoModel", "sam3": "Sam3TrackerVideoModel"}[kind]
    torch.manual_seed(LIVELY[kind][0] if seed is None else seed)
    presence = LIVELY[kind][1] if presence is None else presence
    model = getattr(transformers, name)(config_of(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # theirs are too small to part anything
            fan_in = parameter[0].numel() if parameter.dim() >= 2 else 0
            if fan_in:
                parameter.normal_(0, 0.92 / fan_in**0.5)
        model.memory_temporal_positional_encoding.normal_(0, 0.3)
        decoder = model.mask_decoder
        for embedding in (decoder.iou_token, decoder.mask_tokens, decoder.obj_score_token, model.no_object_pointer):
            (embedding if isinstance(embedding, torch.Tensor) else embedding.weight).normal_(0, 1)
        decoder.iou_prediction_head.proj_out.weight.mul_(20)
        decoder.pred_obj_score_head.proj_out.weight.mul_(40)
        decoder.pred_obj_score_head.proj_out.bias.fill_(presence)
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(0.5)
    return model


def predictor_of(
    kind: str, seed: int | None = None, presence: float | None = None, **options
) -> SAM2LongVideoPredictor:
    return SAM2LongVideoPredictor.from_transformers(model_of(kind, seed, presence), **options)


def pixels(model: nn.Module, video: np.ndarray) -> torch.Tensor:
    """Frames [T, S, S, 3] uint8 of the model's size, as its processor makes them ready: [T, 3, S, S] float32."""
    from sam2long.network.transformers_loading import frame_treatment

    treatment = frame_treatment(model)
    mean, std = (torch.tensor(treatment[name])[:, None, None] for name in ("mean", "std"))
    return (torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255 - mean) / std


# ---- a sam2 model as a Sam2VideoModel ------------------------------------------------------------------------

# What transformers calls sam2's parameters, as patterns and their replacements, in order.
RENAMED = (
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
     "shared_image_embedding.positional_embedding"),
    (r"^sam_prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^sam_prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^sam_prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^sam_prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^sam_prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.out_proj\.(?=weight|bias)", ".o_proj."),
    (r"^memory_encoder\.o_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv([12])\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"(memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
)  # fmt: skip
HEADS = (
    r"(object_pointer_proj|output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|mlp)\.layers\.(\d)"
)


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    if found := re.match(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.(.*)", name):
        place, rest = int(found[1]), found[2]
        part = "final_conv" if place == 12 else f"layers.{place // 3}.{('conv', 'layer_norm')[place % 3]}"
        return f"memory_encoder.mask_downsampler.{part}.{rest}"
    if found := re.search(HEADS, name):  # a first, a last, and what is between them
        last = 1 if found[1] == "mlp" else 2
        part = {0: "proj_in", last: "proj_out"}.get(int(found[2]), "layers.0")
        return name.replace(found[0], f"{found[1]}.{part}")
    return name


class _Encoder(nn.Module):
    """sam2's image encoder where transformers expects its own."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values, **_):
        out = self.encoder(pixel_values)
        return SimpleNamespace(fpn_hidden_states=out["backbone_fpn"], fpn_position_encoding=out["vision_pos_enc"])


def converted(sam2_model: nn.Module) -> nn.Module:
    """nano, or a sam2 model with its sizes, as a Sam2VideoModel with the same weights."""
    import transformers

    side, coarse = sam2_model.image_size, sam2_model.image_size // 16
    vision = transformers.Sam2VisionConfig(
        backbone_config=HIERA, backbone_channel_list=[128, 64, 32, 16], backbone_feature_sizes=_sizes(side),
        fpn_hidden_size=sam2_model.hidden_dim,
    )  # fmt: skip
    shared = _shared(side) | {
        "memory_attention_rope_feat_sizes": [coarse, coarse],
        "memory_fuser_intermediate_dim": 512,
        "mask_decoder_config": {
            "hidden_size": WIDTH, "mlp_dim": 2048, "iou_head_hidden_dim": 256, "num_attention_heads": 8,
            "dynamic_multimask_via_stability": False,
        },
    }  # fmt: skip
    config = transformers.Sam2VideoConfig(
        vision_config=vision, memory_attention_feed_forward_hidden_size=512, memory_fuser_num_layers=1, **shared
    )
    model = transformers.Sam2VideoModel(config).eval()
    model.vision_encoder = _Encoder(sam2_model.image_encoder)
    weights = {_renamed(name): value for name, value in sam2_model.state_dict().items() if "image_encoder" not in name}
    points = [weights.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    weights["prompt_encoder.point_embed.weight"] = torch.cat(points)
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights[
        "shared_image_embedding.positional_embedding"
    ]
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown, unknown
    assert not [name for name in missing if not name.startswith("vision_encoder.")], missing
    return model

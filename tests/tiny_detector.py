"""A small OWLv2 with random weights, saved as `hf download` would leave it."""

import json
from pathlib import Path

import torch

SIZE = 32  # of the picture that its network sees, in pixels


def save_detector(folder: Path) -> Path:
    """Config, weights, image processor and tokenizer of a detector that knows letters."""
    import transformers

    transformers.logging.disable_progress_bar()
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1  # the network looks for the end as the highest id
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={**small, "vocab_size": len(tokens), "bos_token_id": start, "eos_token_id": end},
        vision_config={**small, "image_size": SIZE, "patch_size": 8},
        projection_dim=16,
        initializer_factor=1.0,
    )
    network = transformers.Owlv2ForObjectDetection(config).eval()
    with torch.no_grad():
        network.box_head.dense2.weight *= 0.1  # boxes stay near the patch that they belong to
    network.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "!", "model_max_length": 16})
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Owlv2ImageProcessor", "size": {"height": SIZE, "width": SIZE}})
    )
    return folder

"""Tiny random segmenters in the real architectures, and a switch for what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    Sam2Config,
    Sam2Model,
    Sam3Config,
    Sam3Model,
    SamConfig,
    SamModel,
    SwinConfig,
)

from tests import tiny


def save_sam(folder: Path) -> Path:
    config = SamConfig(
        vision_config={
            "hidden_size": 8,
            "intermediate_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "num_pos_feats": 4,
            "window_size": 4,
            "global_attn_indexes": [0],
            "mlp_dim": 16,
        },
        prompt_encoder_config={
            "hidden_size": 8,
            "image_size": 64,
            "patch_size": 8,
            "image_embedding_size": 8,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )
    return _save(SamModel(config), folder)


def save_sam2(folder: Path) -> Path:
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [64, 64],
                "patch_kernel_size": [7, 7],
                "patch_stride": [4, 4],
                "patch_padding": [3, 3],
                "blocks_per_stage": [1, 1, 1, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 2, 4],
                "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 8,
        },
        prompt_encoder_config={
            "hidden_size": 8,
            "image_size": 64,
            "patch_size": 16,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )
    return _save(Sam2Model(config), folder)


def save_clipseg(folder: Path) -> Path:
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    config = CLIPSegConfig(
        text_config=tiny.text_config(16, tokenizer).to_dict(),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    return _save(CLIPSegForImageSegmentation(config), folder)


def save_grounding_dino(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "bear", "bowl", "red"]
    BertTokenizer(vocab={word: n for n, word in enumerate(words)}).save_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config=_swin(["stage2", "stage3"]),
        text_config=BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_feature_levels=3,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=16,
    )
    return _save(GroundingDinoForObjectDetection(config), folder)


def save_sam3(folder: Path) -> Path:
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **small,
                "num_hidden_layers": 1,
                "image_size": 56,
                "pretrain_image_size": 28,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [0],
            },
            "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=CLIPTextConfig(
            vocab_size=len(tokenizer),
            **small,
            num_hidden_layers=1,
            max_position_embeddings=32,
            projection_dim=16,
        ).to_dict(),
        geometry_encoder_config={**small, "num_layers": 1},
        detr_encoder_config={**small, "num_layers": 1},
        detr_decoder_config={**small, "num_layers": 1, "num_queries": 4},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    return _save(Sam3Model(config), folder)


def save_maskformer(folder: Path) -> Path:
    config = MaskFormerConfig(
        backbone_config=_swin(["stage1", "stage2", "stage3", "stage4"], depths=[1, 1, 1, 1]),
        decoder_config={
            "model_type": "detr",
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "num_queries": 4,
        },
        fpn_feature_size=32,
        mask_feature_size=32,
        id2label={0: "bear", 1: "bowl", 2: "wall"},
    )
    return _save(MaskFormerForInstanceSegmentation(config), folder)


def save_mask2former(folder: Path) -> Path:
    config = Mask2FormerConfig(
        backbone_config=_swin(["stage1", "stage2", "stage3", "stage4"], depths=[1, 1, 1, 1]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=4,
        id2label={0: "bear", 1: "bowl", 2: "wall"},
    )
    return _save(Mask2FormerForUniversalSegmentation(config), folder)


def answer_instead(monkeypatch: Any, segmenter: Any, change: Any) -> list[dict[str, Any]]:
    """Let the network run, and then hand out `change(inputs, its answer)`; return the inputs."""
    network, calls = segmenter._network, []
    forward = network.forward

    def replaced(*args: Any, **kwargs: Any) -> Any:
        assert not args, "inputs go by name"
        calls.append(kwargs)
        return change(kwargs, forward(**kwargs))

    monkeypatch.setattr(network, "forward", replaced)
    return calls


def _swin(stages: list[str], depths: list[int] | None = None) -> SwinConfig:
    return SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=depths or [1, 1, 1],
        num_heads=[1, 2, 2, 2][: len(depths or [1, 1, 1])],
        window_size=4,
        out_features=stages,
    )


def _save(network: torch.nn.Module, folder: Path) -> Path:
    network.save_pretrained(folder)
    return folder

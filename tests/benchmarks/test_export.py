from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from benchmarks.mini_world.base import new_denoiser
from benchmarks.mini_world.export import export_base, export_judge, hash_files
from benchmarks.mini_world.judge import new_judge
from benchmarks.mini_world.loop import Plan, train
from benchmarks.mini_world.tokens import build_tokenizer, world_words
from benchmarks.mini_world.vae import new_vae

WIDTHS = (8, 16, 16)
N_TOKENS = len(build_tokenizer(world_words()))


def checkpoint(module: torch.nn.Module, folder: Path) -> None:
    parameter = next(module.parameters())
    train(module, lambda *_: parameter.sum() ** 2, Plan(folder, lr=1e-4, steps=1))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_exported_base_loads_in_the_stock_pipeline_and_draws(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint(new_denoiser(N_TOKENS, WIDTHS), tmp_path / "checkpoint_scenes")
    new_vae((4, 4, 4)).save_pretrained(tmp_path / "vae_folded")
    assert export_base(tmp_path, "scenes", WIDTHS, tmp_path / "base") == 1
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "base")
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.vae, AutoencoderKL)
    assert pipeline.vae.config.scaling_factor == 1.0
    for solver in (None, DPMSolverMultistepScheduler):
        if solver is not None:
            pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
        image = pipeline("a cat", height=64, width=64, num_inference_steps=2).images[0]
        assert image.size == (64, 64)


def test_an_exported_judge_loads_with_its_tokenizer(tmp_path: Path) -> None:
    checkpoint(new_judge(N_TOKENS), tmp_path / "checkpoint_judge")
    export_judge(tmp_path, tmp_path / "judge")
    tokens = CLIPTokenizer.from_pretrained(tmp_path / "judge")("a cat", return_tensors="pt")
    judge = CLIPModel.from_pretrained(tmp_path / "judge")
    assert judge.get_text_features(tokens.input_ids).pooler_output.shape == (1, 128)


def test_a_changed_file_changes_its_hash_and_the_card_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    (tmp_path / "README.md").write_text("card")
    before = hash_files(tmp_path)
    assert list(before) == ["a.bin"]
    (tmp_path / "a.bin").write_bytes(b"2")
    assert hash_files(tmp_path) != before

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from benchmarks.mini_world.export import HASHES, hash_files
from benchmarks.mini_world.gates import Reader, Wish
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.tokens import world_words
from lora_scene.scenes.scene import load_scene

BASE = Path(str(resources.files("lora_scene.backbones"))) / "mini"
JUDGE = Path(str(resources.files("lora_scene.judging"))) / "mini_judge"
DEMO = Path(str(resources.files("lora_scene.scenes"))) / "demo"
WORDS = [noun.word for noun in noun_set("mini16")]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(BASE)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("folder", [BASE, JUDGE])
def test_the_embedded_files_are_those_that_were_hashed(folder: Path) -> None:
    assert hash_files(folder) == json.loads((folder / HASHES).read_text())


@pytest.mark.parametrize(("folder", "megabytes"), [(BASE, 30), (JUDGE, 10), (DEMO, 0.1)])
def test_the_embedded_files_are_small(folder: Path, megabytes: float) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 1e6 * megabytes


@pytest.mark.parametrize("folder", [BASE / "tokenizer", JUDGE])
def test_an_embedded_tokenizer_knows_its_words_and_takes_handles(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert [word for word in world_words() if len(tokenizer.tokenize(word)) != 1] == []
    assert tokenizer.add_tokens([f"<{word}>" for word in WORDS]) == len(WORDS)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "n_steps"), [(DDIMScheduler, 16), (DPMSolverMultistepScheduler, 10)]
)
def test_the_base_draws_what_it_is_asked_for(
    pipeline: StableDiffusionPipeline, scheduler: type, n_steps: int
) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    wishes = [Wish((noun,), "grass") for noun in WORDS]
    images = pipeline(
        [wish.prompt for wish in wishes],
        height=64, width=64, num_inference_steps=n_steps, guidance_scale=3.5,
        generator=torch.Generator().manual_seed(0), output_type="np",
    ).images  # fmt: skip
    readings = Reader(JUDGE, WORDS).read(list(np.rint(255 * images).astype(np.uint8)))
    right = [w.nouns[0] in r.things for w, r in zip(wishes, readings, strict=True)]
    assert np.mean(right) >= 0.6, [w for w, hit in zip(WORDS, right, strict=True) if not hit]


def test_the_coarsest_cross_attention_outside_the_middle_is_8_by_8(
    pipeline: StableDiffusionPipeline,
) -> None:
    config = pipeline.unet.config
    levels = [n for n, kind in enumerate(config.down_block_types) if kind.startswith("CrossAttn")]
    assert config.sample_size // 2 ** max(levels) == 8
    assert pipeline.vae.config.scaling_factor == 1.0


def test_the_judge_reads_the_demo_scene() -> None:
    scene = load_scene(DEMO)
    (reading,) = Reader(JUDGE, WORDS).read([scene.photos[0].pixels])
    assert sorted(reading.things) == sorted(concept.noun for concept in scene.concepts)


def test_the_judge_is_a_stock_clip_with_its_image_processor() -> None:
    judge = CLIPModel.from_pretrained(JUDGE)
    processor = CLIPImageProcessor.from_pretrained(JUDGE)
    pixels = processor(np.zeros((64, 64, 3), np.uint8), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 64, 64)
    assert torch.allclose(pixels, torch.full_like(pixels, -2.0))
    assert judge.get_image_features(pixels).pooler_output.shape == (1, 128)

"""Train the judge: a small CLIP on the world, the held-out style included.

    python -m benchmarks.mini_world.judge --cache DIR --minutes 11 --ranks 2 --resume

Three terms, each a mean cross-entropy at the model's own temperature: pictures against
their captions (both ways); patches against the names of what they show, so that nouns can
be read off a picture; and two views of one drawing against views of other drawings, among them
another of the same noun, so that picture-picture similarity tells this cat from any cat.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from benchmarks.mini_world.averaging import Average
from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.captions import caption
from benchmarks.mini_world.compose import (
    SIDE,
    Composition,
    Placement,
    Sprites,
    compose,
    draw_combination,
)
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, TRAINING_STYLES, load_drawings
from benchmarks.mini_world.loop import Loss, Plan, add_run_options, launch, train
from benchmarks.mini_world.nouns import noun_set, noun_sets
from benchmarks.mini_world.prefetch import Prefetched, Share
from benchmarks.mini_world.reading import PATCH, class_prompts
from benchmarks.mini_world.smudges import SMUDGE, spoil
from benchmarks.mini_world.tokens import MAX_LENGTH, save_tokenizer, world_words
from lora_scene.judging.mini import patch_embeddings

MEAN, STD = 0.5, 0.25
"""Of the judge's pixel scaling, for all three colours; values in 0..1."""

_N_PROBS = (0.05, 0.3, 0.35, 0.18, 0.12)
_N_SMUDGES = 300
_OBJECT_SHARE, _BACKGROUND_SHARE = 0.45, 0.1
"""A patch shows a drawing above the first share of it, the background below the second."""


@dataclass(frozen=True)
class Lesson:
    """One batch.

    Attributes:
        pictures: (B, 3, S, S).
        tokens: (B, L), of their captions.
        patches: (B, g, g), the class of each patch, or -100.
        views: (2 V, 3, S, S), two of each of V drawings: all first ones, then all second.
    """

    pictures: Tensor
    tokens: Tensor
    patches: Tensor
    views: Tensor

    def to(self, device: torch.device) -> "Lesson":
        """Return the batch on a device."""
        tensors = (self.pictures, self.tokens, self.patches, self.views)
        return Lesson(*(tensor.to(device) for tensor in tensors))


def new_judge(n_tokens: int, width: int = 128, n_layers: int = 4) -> CLIPModel:
    """Return an untrained judge; the text tower has the shape of the base's."""
    start, end = n_tokens - 2, n_tokens - 1
    text = {
        "vocab_size": n_tokens, "hidden_size": 128, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 128,
        "max_position_embeddings": MAX_LENGTH, "bos_token_id": start, "eos_token_id": end,
        "pad_token_id": end,
    }  # fmt: skip
    vision = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": n_layers,
        "num_attention_heads": width // 32, "image_size": SIDE, "patch_size": PATCH,
        "projection_dim": 128,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def patch_classes(scene: Composition, names: list[str]) -> NDArray[np.int64]:
    """Return the class of each patch, (g, g); -100 where it shows too much of both."""
    g = SIDE // PATCH
    shares = scene.masks.reshape(-1, g, PATCH, g, PATCH).mean((2, 4))
    classes = np.full((g, g), -100)
    classes[shares.sum(0) < _BACKGROUND_SHARE] = names.index(scene.background)
    for noun, share in zip(scene.nouns, shares, strict=True):
        classes[share > _OBJECT_SHARE] = names.index(noun)
    return classes


def worn(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, add noise or shift the colours, as a weak decoder would."""
    pixels = Image.fromarray(picture)
    if rng.random() < 0.4:
        small = int(len(picture) * rng.uniform(0.35, 0.8))
        pixels = pixels.resize((small, small), Image.Resampling.BILINEAR)
        pixels = pixels.resize(picture.shape[:2], Image.Resampling.BICUBIC)
    values: NDArray[Any] = np.asarray(pixels, np.float32)
    if rng.random() < 0.4:
        values = values + rng.normal(0, rng.uniform(2, 14), values.shape)
    if rng.random() < 0.4:
        values = values * rng.uniform(0.85, 1.15, 3) + rng.uniform(-12, 12)
    clipped: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return clipped


def rough(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (S, S) as a finder sees it, that knows patches only."""
    coarse = Image.fromarray(mask).convert("L").resize((SIDE // PATCH,) * 2, Image.Resampling.BOX)
    shares = np.asarray(coarse.resize(mask.shape, Image.Resampling.BILINEAR)) / 255
    return shares > rng.uniform(0.25, 0.6)


def crop_view(scene: Composition, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the scene's drawing cut out with a margin and enlarged, mostly alone on grey."""
    place: Placement = scene.placements[0]
    picture = scene.picture.copy()
    if rng.random() < 0.7:
        mask = scene.masks[0] if rng.random() < 0.4 else rough(scene.masks[0], rng)
        picture[~mask] = rng.integers(64, 192)
    side = max(place.height, place.width) + int(rng.integers(0, 9))
    top = int(place.centre[0] - side / 2 + rng.integers(-2, 3))
    left = int(place.centre[1] - side / 2 + rng.integers(-2, 3))
    top, left = (min(max(0, edge), SIDE - side) for edge in (top, left))
    crop = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


class Lessons:
    """Draws the judge's batches."""

    def __init__(self, sprites: Sprites, tokenizer: CLIPTokenizer) -> None:
        self.sprites, self.tokenizer = sprites, tokenizer
        self.names = [*sprites.nouns, SMUDGE, *BACKGROUNDS]

    def draw(self, n: int, rng: np.random.Generator) -> Lesson:
        """Draw a batch of n scenes and about n / 2 pairs of views."""
        scenes = [self._scene(rng) for _ in range(n)]
        words = [self._caption(scene, rng) for scene in scenes]
        nouns = rng.permutation(self.sprites.nouns)[: max(1, n // 4)]
        views = [pair for noun in nouns for pair in self._rivals(str(noun), rng)]
        return Lesson(
            pictures=to_pixels([worn(scene.picture, rng) for scene in scenes]),
            tokens=self.tokenize(words),
            patches=torch.from_numpy(np.stack([patch_classes(s, self.names) for s in scenes])),
            views=to_pixels(
                [worn(view, rng) for side in zip(*views, strict=True) for view in side]
            ),
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return the tokens of texts, (B, L), padded."""
        batch: Any = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        tokens: Tensor = batch.input_ids
        return tokens

    def _scene(self, rng: np.random.Generator) -> Composition:
        n = int(rng.choice(5, p=_N_PROBS))
        nouns, background = draw_combination(self.sprites.nouns, n, rng)
        if n < 4 and rng.random() < 0.25:
            nouns = (*nouns, SMUDGE)
        return compose(self.sprites, nouns, background, rng)

    def _caption(self, scene: Composition, rng: np.random.Generator) -> str:
        kept = [place for place in scene.placements if place.noun != SMUDGE]
        return caption(kept, scene.background, rng)

    def _rivals(
        self, noun: str, rng: np.random.Generator
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Draw two views of each of two drawings of a noun, where it has two."""
        n = self.sprites.n_of(noun)
        return [self._views(noun, int(i), rng) for i in rng.permutation(n)[:2]]

    def _views(
        self, noun: str, drawing: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        names = list(BACKGROUNDS)
        first, second = (
            compose(self.sprites, [noun], names[i], rng, drawings=[drawing])
            for i in rng.integers(len(names), size=2)
        )
        return crop_view(first, rng), crop_view(second, rng)


def to_pixels(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Scale pictures as the judge's image processor does: (B, 3, S, S) float."""
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stack.float() / 255 - MEAN) / STD


def judge_loss(judge: CLIPModel, lesson: Lesson, prompts: Tensor) -> Tensor:
    """Return the sum of the three terms, each a mean; a scalar.

    Args:
        judge: the model.
        lesson: one batch.
        prompts: (C, L) tokens of the patch classes' names.
    """
    scale = judge.logit_scale.exp().clamp(max=50)
    n_scenes = len(lesson.pictures)
    both = torch.cat([lesson.pictures, lesson.views])
    pooled, patches = patch_embeddings(judge, both)
    texts = F.normalize(
        judge.get_text_features(torch.cat([lesson.tokens, prompts])).pooler_output, dim=-1
    )
    captions, names = texts[:n_scenes], texts[n_scenes:]
    logits = scale * pooled[:n_scenes] @ captions.T
    same = (lesson.tokens[:, None] == lesson.tokens).all(-1)
    logits = logits.masked_fill(
        same & ~torch.eye(n_scenes, dtype=torch.bool, device=same.device), -1e4
    )
    aim = torch.arange(n_scenes, device=logits.device)
    matching = 0.5 * (F.cross_entropy(logits, aim) + F.cross_entropy(logits.T, aim))
    dense = scale * patches[:n_scenes] @ names.T
    reading = F.cross_entropy(dense.flatten(0, 2), lesson.patches.flatten())
    first, second = pooled[n_scenes:].chunk(2)
    telling = F.cross_entropy(scale * first @ second.T, aim[: len(first)])
    return matching + 2 * reading + telling


def save_judge(judge: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the judge with its tokenizer and its image processor."""
    judge.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(folder)  # fmt: skip


def objective(judge: CLIPModel, lessons: Lessons, share: Share) -> Loss:
    """Return the loss of a step."""

    def draw(step: int, _: None) -> Lesson:
        return lessons.draw(share.batch, np.random.default_rng((2, share.rank, step)))

    batches = Prefetched(draw, share.n_workers)
    prompts = lessons.tokenize(class_prompts(lessons.names)).to(judge.device)

    def loss(step: int, progress: float) -> Tensor:
        return judge_loss(judge, batches(step, None).to(judge.device), prompts)

    return loss


def run(options: argparse.Namespace, rank: int, average: Average | None) -> None:
    """Train one rank's share; rank 0 saves the judge as `judge/` in the cache."""
    torch.manual_seed(0)
    cache = Path(options.cache)
    drawings = load_drawings(cache)
    sprites = Sprites(drawings, noun_set(options.nouns), (*TRAINING_STYLES, HELD_OUT_STYLE))
    sprites.add(SMUDGE, spoil(list(drawings.rgba), _N_SMUDGES, np.random.default_rng(0)))
    tokenizer = save_tokenizer(cache / f"tokenizer_{rank}", world_words())
    judge = new_judge(len(tokenizer)).to(options.device).train()
    share = Share(options.batch, rank, options.workers)
    loss = objective(judge, Lessons(sprites, tokenizer), share)
    plan = Plan(cache / "checkpoint_judge", lr=1e-3, minutes=options.minutes,
                leave_minutes=options.leave_minutes, flat_share=0.3)  # fmt: skip
    train(judge, loss, plan, rank=rank, average=average, resume=options.resume)
    if rank == 0:
        save_judge(judge, tokenizer, cache / "judge")


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_options(parser)
    parser.add_argument("--nouns", choices=noun_sets(), default="mini16")
    launch(run, parser.parse_args())


if __name__ == "__main__":
    main()

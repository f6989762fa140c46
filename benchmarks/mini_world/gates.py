"""Measure a base against its gates, on prompts that it never trained on.

    python -m benchmarks.mini_world.gates --base DIR --judge DIR --cache DIR --out DIR

prints the figures and writes them as gates.json, with a labelled grid gates.png. Look at
the grid: the judge names what it sees, not how well it is drawn.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTokenizer

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import SIDE, SIZES, Composition, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, Style, load_drawings
from benchmarks.mini_world.judge import to_pixels
from benchmarks.mini_world.latents import to_pictures
from benchmarks.mini_world.nouns import NounSet, noun_set, noun_sets
from benchmarks.mini_world.pictures import labelled_grid
from benchmarks.mini_world.reading import Reading, class_prompts, read_pictures
from benchmarks.mini_world.smudges import SMUDGE
from benchmarks.mini_world.splits import is_held_out
from benchmarks.mini_world.wide import Drawn, lay_out
from lora_scene.judging.mini import with_article

N_STEPS = 25
GUIDANCE = 3.5

GATES = {
    "vae_object_db": 27.0, "single_right": 0.95, "both_right": 0.7, "count_right": 0.8,
    "background_right": 0.95, "twins_right": 0.7, "covering_right": 0.7,
}  # fmt: skip
"""What a base trained on a CPU should reach."""

_BATCH = 16
_SCHEDULERS: dict[str, Any] = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for: nouns, a background, and whether the first covers the second."""

    nouns: tuple[str, ...]
    background: str
    is_covering: bool = False

    @property
    def prompt(self) -> str:
        """Return the prompt."""
        joint = " in front of " if self.is_covering else " and "
        things = joint.join(with_article(noun) for noun in self.nouns)
        return f"a photo of {things} {BACKGROUNDS[self.background][0]}"


@dataclass(frozen=True)
class Score:
    """Shares of pictures, 0..1, by what the judge reads off them; None where none was asked for.

    Attributes:
        single_right: The noun of one is there.
        both_right: Both of two nouns are.
        twins_right: Two of one noun are, and no third.
        covering_right: Both are, of which one was to stand in front of the other.
        count_right: As many things as nouns, where neither twins nor covering is asked for.
        background_right: The background is right, there.
    """

    single_right: float | None = None
    both_right: float | None = None
    twins_right: float | None = None
    covering_right: float | None = None
    count_right: float | None = None
    background_right: float | None = None


class Reader:
    """The judge as a reader of nouns."""

    def __init__(self, folder: Path, nouns: Sequence[str]) -> None:
        self.judge = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.names = [*nouns, SMUDGE, *BACKGROUNDS]
        self.prompts = tokenizer(
            class_prompts(self.names), padding="max_length", return_tensors="pt"
        ).input_ids

    def read(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Reading]:
        """Read pictures, (SIDE, SIDE, 3) uint8 each."""
        return read_pictures(self.judge, to_pixels(list(pictures)), self.names, self.prompts)


def held_out_wishes(nouns: Sequence[str], n_nouns: int, n: int, *, seed: int) -> list[Wish]:
    """Return n wishes that training never drew, in random order, repeated where too few."""
    return _held_out([(words, False) for words in combinations(nouns, n_nouns)], n, seed)


def hard_wishes(nouns: Sequence[str], n: int, *, seed: int) -> list[Wish]:
    """Return n wishes for two of a noun and n for one before another, never drawn in training."""
    twins = _held_out([((noun, noun), False) for noun in nouns], n, seed)
    return twins + _held_out([(words, True) for words in permutations(nouns, 2)], n, seed)


def _held_out(asked: Sequence[tuple[tuple[str, ...], bool]], n: int, seed: int) -> list[Wish]:
    wishes = [
        Wish(words, background, is_covering)
        for words, is_covering in asked
        for background in BACKGROUNDS
        if is_held_out(words, background)
    ]
    order = np.random.default_rng(seed).permutation(len(wishes))
    return [wishes[i] for i in np.resize(order, n)]


def score(wishes: Sequence[Wish], readings: Sequence[Reading]) -> Score:
    """Compare what was asked for with what is read."""
    right: dict[str, list[bool]] = defaultdict(list)
    for wish, reading in zip(wishes, readings, strict=True):
        present = set(wish.nouns) <= set(reading.things)
        if wish.is_covering:
            right["covering_right"].append(present)
        elif len(set(wish.nouns)) < len(wish.nouns):
            right["twins_right"].append(sorted(reading.things) == sorted(wish.nouns))
        else:
            right["single_right" if len(wish.nouns) == 1 else "both_right"].append(present)
            right["count_right"].append(len(reading.things) == len(wish.nouns))
            right["background_right"].append(reading.background == wish.background)
    return Score(**{name: float(np.mean(hits)) for name, hits in right.items()})


def draw_wishes(
    pipeline: StableDiffusionPipeline, wishes: Sequence[Wish], *, seed: int, guidance: float
) -> list[NDArray[np.uint8]]:
    """Draw one picture a wish, (SIDE, SIDE, 3) uint8 each."""
    pictures: list[NDArray[np.uint8]] = []
    for start in range(0, len(wishes), _BATCH):
        batch = wishes[start : start + _BATCH]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))]
        images = pipeline(
            [wish.prompt for wish in batch], height=SIDE, width=SIDE,
            num_inference_steps=N_STEPS, guidance_scale=guidance, generator=generators,
            output_type="np",
        ).images  # fmt: skip
        pictures += list(np.rint(255 * images).astype(np.uint8))
    return pictures


@torch.no_grad()
def object_db(vae: AutoencoderKL, scenes: Sequence[Composition]) -> float:
    """Return the peak signal-to-noise ratio of rebuilt drawings, dB, over all their pixels."""
    pictures = to_pictures(list(scenes))
    masks = torch.from_numpy(np.stack([scene.masks.any(0) for scene in scenes]))
    rebuilt = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    error = ((rebuilt - pictures) / 2).square().mean(1)
    return float(-10 * error[masks].mean().log10())


def world_scenes(
    cache: Path, nouns: NounSet, wishes: Sequence[Wish], styles: Sequence[Style] | None
) -> list[Composition]:
    """Compose the wishes from real drawings, in the given styles."""
    sprites = Sprites(load_drawings(cache), noun_set(nouns), styles)
    rng = np.random.default_rng(11)
    return [
        _covering(sprites, wish, rng)
        if wish.is_covering
        else compose(sprites, wish.nouns, wish.background, rng)
        for wish in wishes
    ]


def _covering(sprites: Sprites, wish: Wish, rng: np.random.Generator) -> Composition:
    """Compose the first thing of a wish in front of the second."""
    while True:
        drawn = []
        for noun in reversed(wish.nouns):  # from the back
            number = int(rng.integers(sprites.n_of(noun)))
            drawn.append(Drawn(noun, number, sprites.pick(noun, int(rng.choice(SIZES[2])), number)))
        scene = lay_out(drawn, wish.background, "contact", rng)
        if scene is not None:
            return scene


def measure(
    options: argparse.Namespace, wishes: Sequence[Wish]
) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """Return all figures, and the pictures drawn with DDIM, one a wish."""
    reader = Reader(options.judge, [noun.word for noun in noun_set(options.nouns)])
    pipeline = StableDiffusionPipeline.from_pretrained(options.base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    held_out = world_scenes(options.cache, options.nouns, wishes, [HELD_OUT_STYLE])
    known = world_scenes(options.cache, options.nouns, wishes, None)
    figures: dict[str, Any] = {
        "n_each": options.n,
        "seed": options.seed,
        "guidance": options.guidance,
        "vae_object_db": object_db(pipeline.vae, held_out),
        "vae_object_db_training_styles": object_db(pipeline.vae, known),
    }
    for name, scenes in (("judge_held_out_style", held_out), ("judge_known_styles", known)):
        figures[name] = asdict(score(wishes, reader.read([scene.picture for scene in scenes])))
    drawn = {}
    for name, scheduler in _SCHEDULERS.items():
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        drawn[name] = draw_wishes(pipeline, wishes, seed=options.seed, guidance=options.guidance)
        figures[name] = asdict(score(wishes, reader.read(drawn[name])))
    return figures, drawn["ddim"]


def report(figures: dict[str, Any]) -> str:
    """Return the figures, and a line for each gate.

    Where the judge reads fewer of the world's own scenes right than a gate asks, such as two of a
    noun side by side, which it takes for one, those are the gate.
    """
    reached = {"vae_object_db": figures["vae_object_db"], **figures["ddim"]}
    lines = [json.dumps(figures, indent=1)]
    for name, gate in GATES.items():
        least = min(gate, figures["judge_known_styles"].get(name, gate))
        verdict = "met" if reached[name] >= least else "missed"
        lines.append(f"{name}: {reached[name]:.3f}, gate {least:.3g}: {verdict}")
    return "\n".join(lines)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="pipeline folder")
    parser.add_argument("--judge", type=Path, required=True, help="judge folder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--nouns", choices=noun_sets(), default="mini16")
    parser.add_argument("--n", type=int, default=64, help="pictures of one noun, and of two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    options = parser.parse_args()
    words = [noun.word for noun in noun_set(options.nouns)]
    singles = held_out_wishes(words, 1, options.n, seed=0)
    pairs = held_out_wishes(words, 2, options.n, seed=1)
    hard = hard_wishes(words, options.n, seed=2)
    figures, drawn = measure(options, singles + pairs + hard)
    print(report(figures))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gates.json").write_text(json.dumps(figures, indent=1) + "\n")
    few = min(16, options.n)
    shown = [kind * options.n + i for kind in range(4) for i in range(few)]
    prompts = [wish.prompt for wish in [*singles, *pairs, *hard]]
    grid = labelled_grid([drawn[i] for i in shown], [prompts[i] for i in shown])
    grid.save(options.out / "gates.png")


if __name__ == "__main__":
    main()

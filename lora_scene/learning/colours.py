"""How far the colours of things lie from those that the untouched base gives their nouns.

The base draws each noun a few times. Where the noun's token looks in a picture, most strongly, the
thing is; so the picture's mean colour there is one that the base expects. A thing is as far as the
nearest of them: a noun that has many colours expects each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.learning.base_pictures import draw_pictures
from lora_scene.learning.samples import decoded
from lora_scene.recipe import Grounds
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import INSIDE, Scene
from lora_scene.scenes.union import prompt_for
from lora_scene.size import Size

LOOKS_AT = 0.5  # of all timesteps: the noise under which attention is read
STRONG = 0.7  # of a map's maximum: less is beside the thing, in coarse maps

Colour = npt.NDArray[np.float32]
"""(3,) in CIELAB."""


@dataclass(frozen=True)
class Drawing:
    """How the base draws nouns, to see what colours it gives them.

    Attributes:
        settings: Pictures a noun, steps, guidance.
        template: Of a prompt, with `{}` for the noun.
        level: The UNet's level whose maps are read; see `read_level`.
        seed: Of the pictures.
        cache: A safetensors file.
        base: What tells the base's numbers from others of the same name.
    """

    settings: Grounds
    template: str
    level: int
    seed: int
    cache: Path
    base: object = ""


def colour_distances(backbone: Backbone, scene: Scene, drawing: Drawing) -> dict[int, float]:
    """Return each thing's distance (CIE76) from the nearest of its noun's pictures, by index.

    A thing's own colour is the mean over its cells of all photos.

    Raises:
        SceneError: A prompt that names a noun would be cut.
    """
    nouns = list(dict.fromkeys(scene.concepts[k].noun for k in scene.things))
    n, side = drawing.settings.n_per_noun, backbone.resolution // backbone.vae_factor
    latents = draw_pictures(
        backbone,
        [prompt_for([noun], None, drawing.template) for noun in nouns for _ in range(n)],
        n_steps=drawing.settings.n_steps,
        guidance=drawing.settings.guidance,
        sizes=[Size(side, side)] * (n * len(nouns)),
        seed=drawing.seed,
        cache=drawing.cache,
        where="handles.templates",
        base=drawing.base,
    )
    expected = {
        noun: _expected_colours(backbone, noun, latents[i * n : (i + 1) * n], drawing)
        for i, noun in enumerate(nouns)
    }
    found = {}
    for k in scene.things:
        own = _own_colour(scene, k)
        away = [np.linalg.norm(own - one) for one in expected[scene.concepts[k].noun]]
        found[k] = float(min(away))
    return found


def mean_colour(cells: Pixels) -> Colour:
    """Return the mean in CIELAB of colours (n, 3)."""
    import cv2

    lab = cv2.cvtColor(cells[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(lab[0].mean(axis=0), np.float32)


def noun_tokens(backbone: Backbone, noun: str, template: str) -> list[int]:
    """Return where, in a template filled in, a noun's tokens are for the first tokenizer."""
    read = backbone.tokenizers[0]
    named, bare = (read(prompt_for([name], None, template)).input_ids for name in (noun, ""))
    start = next(i for i in range(len(named)) if named[: i + 1] != bare[: i + 1])
    return list(range(start, start + max(1, len(named) - len(bare))))


def _own_colour(scene: Scene, k: int) -> Colour:
    shown = [photo for photo in scene.photos if k in photo.present]
    return mean_colour(np.concatenate([one.pixels[one.masks[k] >= INSIDE] for one in shown]))


@torch.no_grad()
def _expected_colours(
    backbone: Backbone, noun: str, pictures: Sequence[Tensor], drawing: Drawing
) -> list[Colour]:
    """Return the mean colour of a noun in each of its pictures, latents (c, h, w)."""
    import cv2

    ids = backbone.tokenize([prompt_for([noun], None, drawing.template)])
    text = backbone.encode_tokens(ids)
    tokens = noun_tokens(backbone, noun, drawing.template)
    columns = Columns.of([[tokens]], ids[0].shape[1], backbone.device)
    t = torch.full((1,), round(LOOKS_AT * backbone.n_timesteps), device=backbone.device)
    recorder = AttentionRecorder(backbone.unet, level=drawing.level)
    colours = []
    with recorder.attached():
        for number, latent in enumerate(pictures):
            noise = torch.Generator().manual_seed(drawing.seed + number)
            z = latent[None].to(backbone.device)
            z_t = backbone.add_noise(z, torch.randn(z.shape, generator=noise).to(z), t)
            with recorder.recording(columns, z_t):
                backbone.denoise(z_t, t, text)
            (strength,) = recorder.maps()[0].cpu().numpy()
            pixels = np.asarray(decoded(backbone, z))
            strength = cv2.resize(strength, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            colours.append(mean_colour(pixels[strength >= STRONG * strength.max()]))
    return colours

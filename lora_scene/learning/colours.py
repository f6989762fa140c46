"""How far the colours of things lie from those that the untouched base gives their nouns.

The base draws each noun a few times. Where the noun's token looks in a picture, most strongly, the
thing is; so the picture's mean colour there is one that the base expects. A thing is as far as the
nearest of them: a noun that has many colours expects each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.prompt_room import NO_COLOURS
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.learning.base_pictures import draw_pictures
from lora_scene.learning.handle_table import refuse_cut
from lora_scene.learning.samples import decoded
from lora_scene.recipe import Grounds
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.run_prompts import known_nouns
from lora_scene.scenes.scene import INSIDE, Scene
from lora_scene.scenes.union import prompt_for
from lora_scene.size import Size

LOOKS_AT = 0.5  # of all timesteps: the noise under which attention is read
NOISE_SEED = 2**32  # no picture begins with it
STRONG = 0.7  # of a map's maximum: less is beside the thing, in coarse maps

Colour = npt.NDArray[np.float32]
"""(3,) in CIELAB."""


def colour_distances(
    backbone: Backbone, scene: Scene, settings: Grounds, *, template: str, level: int
) -> dict[str, float]:
    """Return each thing's distance (CIE76) from the nearest of its noun's pictures, by handle.

    A thing's own colour is the mean over its cells of all photos. Each noun is drawn from the same
    seeds, so that what is far hangs on nothing but base, noun and photo.

    Args:
        backbone: The base, before anything is trained.
        scene: Things without a noun are left out.
        settings: Pictures a noun, their steps and guidance.
        template: Of a prompt, with `{}` for the noun.
        level: The UNet's level whose maps are read; see `read_level`.

    Raises:
        SceneError: A prompt that names a noun would be cut.
    """
    side = backbone.resolution // backbone.vae_factor
    n, expected = settings.n_per_noun, {}
    prompts = {noun: prompt_for([noun], None, template) for noun in known_nouns(scene)}
    place = {
        "where": "handles.templates",
        "hint": NO_COLOURS,
    }
    refuse_cut(backbone, [*prompts.values()], **place)  # all of them before any is drawn
    for noun, prompt in prompts.items():
        pictures = draw_pictures(
            backbone,
            [prompt] * n,
            n_steps=settings.n_steps,
            guidance=settings.guidance,
            sizes=[Size(side, side)] * n,
            seed=0,
            cache=None,
            **place,
        )
        expected[noun] = _expected_colours(backbone, noun, pictures, template, level)
    found = {}
    for k in scene.things:
        concept = scene.concepts[k]
        if concept.noun in expected:
            own = _own_colour(scene, k)
            away = [float(np.linalg.norm(own - one)) for one in expected[concept.noun]]
            found[concept.handle] = min(away)
    return found


def mean_colour(cells: Pixels) -> Colour:
    """Return the mean in CIELAB of colours (n, 3), uint8 RGB."""
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
    backbone: Backbone, noun: str, pictures: Sequence[Tensor], template: str, level: int
) -> list[Colour]:
    """Return the mean colour of a noun in each of its pictures, latents (c, h, w)."""
    import cv2

    ids = backbone.tokenize([prompt_for([noun], None, template)])
    text = backbone.encode_tokens(ids)
    tokens = noun_tokens(backbone, noun, template)
    columns = Columns.of([[tokens]], ids[0].shape[1], backbone.device)
    t = torch.full((1,), round(LOOKS_AT * backbone.n_timesteps), device=backbone.device)
    noise = torch.Generator().manual_seed(NOISE_SEED)
    recorder = AttentionRecorder(backbone.unet, level=level)
    colours = []
    with recorder.attached():
        for latent in pictures:
            z = latent[None].to(backbone.device)
            z_t = backbone.add_noise(z, torch.randn(z.shape, generator=noise).to(z), t)
            with recorder.recording(columns, z_t):
                backbone.denoise(z_t, t, text)
            (strength,) = recorder.maps()[0].cpu().numpy()
            pixels = np.asarray(decoded(backbone, z))
            strength = cv2.resize(strength, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            colours.append(mean_colour(pixels[strength >= STRONG * strength.max()]))
    return colours

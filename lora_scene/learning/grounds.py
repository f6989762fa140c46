"""Things on grounds that the untouched base draws, under prompts that name the grounds.

Under noise the base's answer around a thing holds another one of its noun, in the colours that the
base expects (see `colours`); and the photo's own ground is not to be learnt. So where there is
noise enough to hide cut edges, the named things are put onto an empty ground, in latents, and the
prompt says where they are: "a photo of <cat>" becomes "a photo of <cat> on sand". What is predicted
is the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.learning.base_pictures import deal_sizes, deal_turns, draw_pictures
from lora_scene.learning.draws import Sample
from lora_scene.recipe import Grounds
from lora_scene.scenes.scene import Concept
from lora_scene.size import Size


@dataclass(frozen=True)
class GroundSet:
    """Grounds that the base drew.

    Attributes:
        latents: (c, h, w) each, of the sizes that the photos are learnt at, on the CPU.
        phrases: What a prompt says of each, behind the things.
        settings: How often they are shown.
        things: Indices of those that are far; samples that name none of them stay.
    """

    latents: tuple[Tensor, ...]
    phrases: tuple[str, ...]
    settings: Grounds
    things: frozenset[int]

    def under(
        self,
        samples: Sequence[Sample],
        concepts: Sequence[Concept],
        *,
        n_timesteps: int,
        rng: np.random.Generator,
    ) -> list[Sample]:
        """Return the samples, those that are drawn for it with a ground under their things.

        A sample that names a background, or whose caption says of a background already, stays.

        Args:
            samples: Of one size, as `draw_batch` draws them.
            concepts: All that there are.
            n_timesteps: Of the base.
            rng: As many numbers are drawn from it whatever comes of them.
        """
        settings, fitting = self.settings, self._of_size(samples[0].variant.latents)
        made = []
        for sample in samples:
            is_drawn = rng.random() < settings.prob
            chosen = fitting[int(rng.integers(len(fitting)))]
            is_noisy = sample.t >= settings.noise_from * n_timesteps
            is_told = bool(sample.variant.caption_suffix) or any(
                concepts[k].is_background for k in sample.subset
            )
            is_near = self.things.isdisjoint(sample.subset)
            stays = is_told or is_near or not (is_drawn and is_noisy)
            made.append(sample if stays else self._put(sample, chosen))
        return made

    def _of_size(self, size: Size) -> list[int]:
        return [i for i, latent in enumerate(self.latents) if Size.of(latent.shape) == size]

    def _put(self, sample: Sample, chosen: int) -> Sample:
        things = sample.variant.masks[list(sample.subset)].amax(dim=0, keepdim=True)
        said = f" {self.phrases[chosen]}"
        return replace(
            sample,
            z=things * sample.z + (1 - things) * self.latents[chosen],
            prompt=sample.prompt + said,
            plain_prompt=sample.plain_prompt + said,
            on_ground=True,
        )


def draw_grounds(
    backbone: Backbone,
    settings: Grounds,
    things: frozenset[int],
    *,
    shares: Mapping[Size, float],
    seed: int,
    cache: Path,
    base: object = "",
) -> GroundSet:
    """Let the base draw its grounds, or read them from `cache`; see `draw_pictures`.

    Args:
        backbone: The base, before anything is trained.
        settings: Prompts, phrases, steps, guidance.
        things: Indices of those that are shown so.
        shares: How often each size, in cells of the latents, is drawn.
        seed: Seed of the pictures.
        cache: A safetensors file.
        base: What tells the base's numbers from others of the same name.

    Raises:
        SceneError: A prompt would be cut.
    """
    sizes = deal_sizes(shares, settings.n_images)
    turns = [turn % len(settings.prompts) for turn in deal_turns(sizes)]
    latents = draw_pictures(
        backbone,
        [settings.prompts[i] for i in turns],
        n_steps=settings.n_steps,
        guidance=settings.guidance,
        sizes=sizes,
        seed=seed,
        cache=cache,
        where="grounds.prompts",
        base=base,
    )
    return GroundSet(latents, tuple(settings.phrases[i] for i in turns), settings, things)

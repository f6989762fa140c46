"""The settings of what a run is shown: views of the photo, and pictures of the base's own."""

from __future__ import annotations

from dataclasses import dataclass

from lora_scene.forms import between

SHARE_DIGITS = 9  # 0.33 + 0.56 + 0.11 is a little more than 1


@dataclass(frozen=True)
class Prior:
    """Prior preservation (DreamBooth, arXiv:2208.12242): the base's own pictures in each batch.

    Attributes:
        weight: Weight of the prior term; 0 turns it off.
        n_images: Pictures drawn by the untouched base before training.
        n_steps: Denoising steps of each picture.
        guidance: Guidance scale of each picture.
        prompts: Prompts with `{}` for a class noun; never an evaluation prompt.
    """

    weight: float = between(0.0, 0.0)
    n_images: int = between(32, 1, 10_000)
    n_steps: int = between(25, 1, 1000)
    guidance: float = between(7.5, 1.0)
    prompts: tuple[str, ...] = (
        "a photo of a {}",
        "a photo of a {} in a room",
        "a photo of a {} on a table",
        "a photo of a {} outdoors",
    )


@dataclass(frozen=True)
class Grounds:
    """Things cut out and shown on grounds that the untouched base draws, which prompts then name.

    What stands around a thing is then the picture itself: no answer of the base, in which there may
    be another thing of the noun, in the colours that the base gives it. In all other samples, about
    which the base is asked, things that the prompt leaves out weigh nothing then: it takes them for
    the named one. Where all things have colours that the base expects, a run is as without grounds.

    Attributes:
        prob: Probability that a sample is shown so, among those that name a thing that is far, with
            noise enough; 0 draws none. Samples stay as they are that name a background, or whose
            caption says of one already.
        far: Distance in CIELAB (CIE76) from which on a thing is far: of its mean colour in the
            photos from that of the nearest picture that the base draws of its noun. At 0 all are;
            what has no noun is not.
        n_per_noun: Pictures that the base draws of each noun to see; none where `far` is 0.
        noise_from: Least timestep, as a fraction of all; below it cut edges would be seen.
        outside_weight: Weight of the ground's cells. Below 1 a thing is overstated where noise
            hides it, and is not lost.
        prompts: Each draws a ground without a thing; never the place of an evaluation prompt.
        phrases: What a prompt says of each ground, behind the things.
        n_images: Grounds drawn, the prompts' in turn.
        n_steps: Denoising steps of each picture, of a noun too.
        guidance: Guidance scale of each.
    """

    prob: float = between(0.0, 0.0, 1.0)
    far: float = between(40.0, 0.0)
    n_per_noun: int = between(6, 1, 1000)
    noise_from: float = between(0.6, 0.0, 1.0)
    outside_weight: float = between(0.2, 0.0, 1.0)
    prompts: tuple[str, ...] = (
        "a photo of an empty room",
        "a photo of an empty table",
        "a photo of a meadow",
        "a photo of an empty desert",
        "a photo of a plain wall",
    )
    phrases: tuple[str, ...] = (
        "in a room",
        "on a table",
        "in a meadow",
        "in a desert",
        "in front of a plain wall",
    )
    n_images: int = between(10, 1, 10_000)
    n_steps: int = between(25, 1, 1000)
    guidance: float = between(7.5, 1.0)

    @property
    def is_on(self) -> bool:
        """Tell whether any sample may be shown so."""
        return self.prob > 0 and self.noise_from < 1


@dataclass(frozen=True)
class Augment:
    """What is done to the photo and its masks, together.

    Attributes:
        flip_prob: Probability of a mirrored variant.
        crop_prob: Probability of a random crop.
        crop_min_scale: Side of the smallest crop, as a fraction of the photo's.
        recompose_prob: Probability of concepts cut out and pasted at random scales and places
            (after MuDI, arXiv:2404.04243).
        rearrange_prob: Probability of the drawn concepts alone, at random places of the photo's own
            background, from which all things were painted away.
        paste_prob: Probability of masked concepts alone on a random solid colour, as the paper's
            baselines are given them (Break-A-Scene, section 4).
        n_variants: Random variants of each kind that are made, encoded and cached.
    """

    flip_prob: float = between(0.5, 0.0, 1.0)
    crop_prob: float = between(0.0, 0.0, 1.0)
    crop_min_scale: float = between(0.7, 0.1, 1.0)
    recompose_prob: float = between(0.0, 0.0, 1.0)
    rearrange_prob: float = between(0.0, 0.0, 1.0)
    paste_prob: float = between(0.0, 0.0, 1.0)
    n_variants: int = between(24, 1, 4096)

    @property
    def random_shares(self) -> tuple[float, ...]:
        """Return the share of the steps that each kind of random variant has."""
        return self.crop_prob, self.recompose_prob, self.rearrange_prob, self.paste_prob

    @property
    def plain_share(self) -> float:
        """Return what they leave to the photo itself; below 0 where they are more than all."""
        return 1 - round(sum(self.random_shares), SHARE_DIGITS)

"""Options that several verbs share, so that they are called and explained alike."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.adapters.layouts import DTYPE_NAMES
from lora_scene.cli.paths import GIVEN, TARGET_FILE, TARGET_FOLDER, complete_place
from lora_scene.cli.values import SEED, Number, PictureSize, many, packed
from lora_scene.creating.limits import MAX_GUIDANCE, MAX_STEPS
from lora_scene.creating.requests import (
    Control,
    Place,
    Request,
    Sampling,
    parse_amount,
)
from lora_scene.creating.schedulers import OWN, SAMPLERS
from lora_scene.size import Size

if TYPE_CHECKING:
    from lora_scene.adapters.formats.modelspec import Title
    from lora_scene.backbones.loading import Dtype
    from lora_scene.backbones.storage import Quantization
    from lora_scene.creating.studio import Cast, Studio

folder_argument = click.argument("folder", metavar="DIR", type=GIVEN)
base_config_option = click.option(
    "--base-config", "config", help="For a single file: hub id or folder of a base of its family."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu."
)
overrides_option = many(
    "--set", "overrides", "SECTION.KEY=VALUE", "Override a setting of the recipe; repeatable."
)
file_dtype_option = click.option(
    "--dtype", default="fp16", show_default=True, type=click.Choice(DTYPE_NAMES), help="Of files."
)
seed_option = click.option(
    "--seed",
    default=0,
    show_default=True,
    type=SEED,
    help="Of all that is drawn; -1 draws one and prints it.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and no progress."
)
out_option = click.option(
    "--out", required=True, type=TARGET_FOLDER, help="Folder of what is made."
)
photo_option = click.option("--photo", required=True, type=GIVEN, help="Any size.")
picture_option = click.option(
    "--out", required=True, type=TARGET_FILE, help="The picture to write: .png, .webp or .jpg."
)
size_option = click.option(
    "--size",
    type=PictureSize(),
    help="Pixels, 512 or 512x768.  [default: the base's own; for decompose and variations the "
    "photo's shape]",
)
steps_option = click.option(
    "--steps",
    default=Sampling().n_steps,
    show_default=True,
    type=click.IntRange(1, MAX_STEPS),
    help="Of the solver.",
)
guidance_option = click.option(
    "--guidance",
    type=Number(-MAX_GUIDANCE, MAX_GUIDANCE),
    help="CFG scale.  [default: 7.5; SDXL 5; bases of 128 px or less 3.5]",
)


@dataclass(frozen=True)
class AdapterOptions:
    """Which adapters, `DIR` or `DIR:WEIGHT` each, and `OLD=NEW` handles."""

    adapters: tuple[str, ...]
    renamed: tuple[str, ...] = ()

    def read(self, also: Sequence[str] = ()) -> Cast:
        """Read the adapters, handles renamed; `also` renames where the options do not."""
        from lora_scene.creating.choices import AdapterChoice
        from lora_scene.creating.studio import read_cast

        choices = [AdapterChoice.parse(text) for text in self.adapters]
        return read_cast(choices, rename=self.renamed or also)


@dataclass(frozen=True)
class BaseOptions:
    """Which base, where, and how it is stored."""

    base: str | None
    config: str | None
    device: str
    dtype: Dtype
    quantization: Quantization

    def open(self, cast: Cast) -> Studio:
        """Load the base with a cast's adapters; show the studio's notices."""
        from lora_scene.cli.progress import show_notices

        studio = cast.studio(**vars(self))
        show_notices(studio.notices)
        return studio


@dataclass(frozen=True)
class SamplingOptions:
    """How pictures are drawn."""

    steps: int
    guidance: float | None
    scheduler: str
    negative: str

    def request(
        self,
        prompt: str = "",
        *,
        seed: int = 0,
        size: Size | None = None,
        strength: float = 1.0,
        control: Control | None = None,
    ) -> Request:
        """Return the request that is asked for."""
        return Request(
            prompt,
            seed=seed,
            negative=self.negative,
            size=size,
            sampling=Sampling(self.steps, self.guidance, self.scheduler, strength),
            control=control or Control(),
        )


@dataclass(frozen=True)
class ControlOptions:
    """What is asked of single concepts, as it was typed."""

    places: tuple[str, ...]
    strengths: tuple[str, ...]
    emphases: tuple[str, ...]

    def read(self) -> Control:
        """Read what was typed."""
        return Control(
            tuple(map(Place.parse, self.places)),
            tuple(map(parse_amount, self.strengths)),
            tuple(map(parse_amount, self.emphases)),
        )


@dataclass(frozen=True)
class TitleOptions:
    """What published files are called, and who made them."""

    name: str | None
    author: str
    licence: str

    def read(self, folder: Path) -> Title:
        """Return the title of what is made of the adapter in a folder, today."""
        from lora_scene.adapters.formats.modelspec import Title
        from lora_scene.adapters.location import plain_name

        today = datetime.datetime.now(datetime.UTC).date()
        return Title(self.name or plain_name(folder), self.author, self.licence, today)


adapters_argument = packed(
    "chosen",
    AdapterOptions,
    (
        click.argument("adapters", nargs=-1, metavar="DIR[:WEIGHT]...",
                       shell_complete=complete_place),
        many("--rename", "renamed", "OLD=NEW", "Another handle for one of an adapter, where two "
             "have the same: in the last. Repeatable."),
    ),
)  # fmt: skip
sampling_options = packed(
    "sampling",
    SamplingOptions,
    (
        steps_option,
        guidance_option,
        click.option("--scheduler", default=Sampling().scheduler, show_default=True,
                     help=f"{OWN} (its own), {', '.join(SAMPLERS)}."),
        click.option("--negative", default="", help="What the picture should not show."),
    ),
)  # fmt: skip
control_options = packed(
    "controls",
    ControlOptions,
    (
        many("--at", "places", "HANDLE=LEFT,TOP,RIGHT,BOTTOM",
             "Place a concept in a box, such as bear=0.1,0.5,0.5,1.0. Repeatable."),
        many("--strength", "strengths", "HANDLE=AMOUNT",
             "Of a learnt identity: 0 is any thing of its noun, 1 as learnt. Repeatable."),
        many("--emphasis", "emphases", "HANDLE=FACTOR",
             "Of the attention to a handle; 1 changes nothing, 0 hides it. Repeatable."),
    ),
)  # fmt: skip
base_options = packed(
    "base",
    BaseOptions,
    (
        click.option("--base", help="Hub id, folder, .safetensors file or mini.  [default: what "
                     "the adapter was trained on]", shell_complete=complete_place),
        base_config_option,
        device_option,
        click.option("--dtype", default="auto", show_default=True, help="Of the base.",
                     type=click.Choice(("auto", *DTYPE_NAMES))),
        click.option("--quantization", default="none", show_default=True,
                     help="Storage of the UNet's weights.",
                     type=click.Choice(("none", "nf4", "int8", "fp8"))),
    ),
)  # fmt: skip
title_options = packed(
    "titled",
    TitleOptions,
    (
        click.option("--name", help="Of the files for interfaces.  [default: that of DIR]"),
        click.option("--author", default="", help="Who made it."),
        click.option("--license", "licence", default="",
                     help="SPDX id.  [default: on a card the base's usual one]"),
    ),
)  # fmt: skip


def look_at(cast: Cast, requests: Sequence[Request]) -> list[Request]:
    """Check what of requests needs no base, and show what a person should know of the prompts."""
    from lora_scene.cli.progress import show_notices

    requests = [request.resolved(cast) for request in requests]
    show_notices(cast.notes_on_all(requests))
    return requests

"""Options that several verbs share, so that they are called and explained alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lora_scene.cli.paths import TARGET_FILE, TARGET_FOLDER
from lora_scene.cli.values import SEED, Number, Size

if TYPE_CHECKING:
    from lora_scene.creating.requests import Request
    from lora_scene.creating.studio import Cast, Studio

Command = TypeVar("Command", bound=Callable[..., Any])

DTYPES = ("auto", "fp32", "fp16", "bf16")

base_option = click.option(
    "--base",
    help="Hub id, folder, .safetensors file or mini.  [default: what the adapter was trained on]",
)
base_config_option = click.option(
    "--base-config", help="For a single file: hub id or folder of a base of its family."
)
quantization_option = click.option(
    "--quantization",
    default="none",
    show_default=True,
    type=click.Choice(("none", "nf4", "int8", "fp8")),
    help="Storage of the UNet's weights.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu."
)
dtype_option = click.option(
    "--dtype", default="auto", show_default=True, type=click.Choice(DTYPES), help="Of the base."
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
    "--out",
    required=True,
    type=TARGET_FOLDER,
    help="Folder of the pictures.",
)
picture_option = click.option(
    "--out",
    required=True,
    type=TARGET_FILE,
    help="The picture to write: .png, .webp or .jpg.",
)
size_option = click.option(
    "--size", type=Size(), help="Pixels, 512 or 512x768.  [default: the base's own]"
)


def adapters_argument(command: Command) -> Command:
    """Add DIR[:WEIGHT]... and --rename."""
    rename = click.option(
        "--rename",
        "renamed",
        multiple=True,
        metavar="OLD=NEW",
        help="Another handle for one of an adapter, where two have the same: in the last. "
        "Repeatable.",
    )
    return click.argument("adapters", nargs=-1, metavar="DIR[:WEIGHT]...")(rename(command))


def sampling_options(command: Command) -> Command:
    """Add --steps, --guidance, --scheduler and --negative."""
    for option in (
        click.option("--negative", default="", help="What the picture should not show."),
        click.option(
            "--scheduler",
            default="base",
            show_default=True,
            help="base (its own), ddim, ddpm, dpm++, dpm++-karras, dpm++-sde, euler, euler-a, "
            "heun, lms, pndm or unipc.",
        ),
        click.option(
            "--guidance",
            type=Number(),
            help="CFG scale.  [default: 7.5; SDXL 5; bases of 128 px or less 3.5]",
        ),
        click.option(
            "--steps",
            default=30,
            show_default=True,
            type=click.IntRange(1, 1000),
            help="Of the solver.",
        ),
    ):
        command = option(command)
    return command


def base_options(command: Command) -> Command:
    """Add --base, --base-config, --device, --dtype and --quantization."""
    for option in (
        quantization_option,
        dtype_option,
        device_option,
        base_config_option,
        base_option,
    ):
        command = option(command)
    return command


def control_options(command: Command) -> Command:
    """Add --at, --strength and --emphasis."""
    for option in (
        click.option(
            "--emphasis",
            "emphases",
            multiple=True,
            metavar="HANDLE=FACTOR",
            help="Of the attention to a handle; 1 changes nothing, 0 hides it. Repeatable.",
        ),
        click.option(
            "--strength",
            "strengths",
            multiple=True,
            metavar="HANDLE=AMOUNT",
            help="Of a learnt identity: 0 is any thing of its noun, 1 as learnt. Repeatable.",
        ),
        click.option(
            "--at",
            "places",
            multiple=True,
            metavar="HANDLE=LEFT,TOP,RIGHT,BOTTOM",
            help="Place a concept in a box, such as bear=0.1,0.5,0.5,1.0. Repeatable.",
        ),
    ):
        command = option(command)
    return command


def cast_from(adapters: Sequence[str], shared: Mapping[str, Any], also: Sequence[str] = ()) -> Cast:
    """Read the adapters of `adapters_argument`, handles renamed; `also` renames where not asked."""
    from lora_scene.creating.studio import AdapterChoice, read_cast

    choices = [AdapterChoice.parse(text) for text in adapters]
    return read_cast(choices, rename=shared.get("renamed") or also)


def look_at(cast: Cast, requests: Sequence[Request]) -> list[Request]:
    """Check what of requests needs no base, and show what a person should know of the prompts."""
    from lora_scene.cli.progress import show_notices

    requests = [request.resolved(cast) for request in requests]
    prompts = dict.fromkeys(request.prompt for request in requests if not request.is_base)
    show_notices([note for prompt in prompts for note in cast.notes_on(prompt)])
    return requests


def open_from(cast: Cast, shared: Mapping[str, Any]) -> Studio:
    """Load the base that `base_options` ask for, with adapters; show the studio's notices."""
    from lora_scene.cli.progress import show_notices

    studio = cast.studio(
        base=shared["base"],
        device=shared["device"],
        dtype=shared["dtype"],
        quantization=shared["quantization"],
        config=shared["base_config"],
    )
    show_notices(studio.notices)
    return studio


def request_from(
    shared: Mapping[str, Any], prompt: str = "", *, seed: int = 0, strength: float = 1.0
) -> Request:
    """Return the request that a verb's options ask for."""
    from lora_scene.creating.requests import (
        Control,
        Place,
        Request,
        Sampling,
        parse_amount,
    )

    return Request(
        prompt,
        seed=seed,
        negative=shared["negative"],
        size=shared.get("size"),
        sampling=Sampling(shared["steps"], shared["guidance"], shared["scheduler"], strength),
        control=Control(
            tuple(Place.parse(text) for text in shared.get("places", ())),
            tuple(parse_amount(text) for text in shared.get("strengths", ())),
            tuple(parse_amount(text) for text in shared.get("emphases", ())),
        ),
    )

"""Options that several verbs share, so that they are called and explained alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lora_scene.cli.paths import TARGET_FILE, TARGET_FOLDER
from lora_scene.cli.values import SEED

if TYPE_CHECKING:
    from lora_scene.creating.control import Control
    from lora_scene.creating.sampling import Sampling
    from lora_scene.creating.studio import Studio

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
    help="The picture to write, a .png.",
)
size_option = click.option("--size", help="Pixels, 512 or 512x768.  [default: the base's own]")
adapters_argument = click.argument("adapters", nargs=-1, metavar="DIR[:WEIGHT]...")


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
            type=float,
            help="CFG scale.  [default: 7.5; SDXL 5; bases of 128 px or less 3.5]",
        ),
        click.option(
            "--steps",
            default=30,
            show_default=True,
            type=click.IntRange(min=1),
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


def open_from(adapters: Sequence[str], shared: Mapping[str, Any]) -> Studio:
    """Open a studio as `adapters_argument` and `base_options` ask; show its notices."""
    from lora_scene.cli.progress import show_notices
    from lora_scene.creating.studio import AdapterChoice, open_studio

    studio = open_studio(
        [AdapterChoice.parse(text) for text in adapters],
        base=shared["base"],
        device=shared["device"],
        dtype=shared["dtype"],
        quantization=shared["quantization"],
        config=shared["base_config"],
    )
    show_notices(studio.notices)
    return studio


def sampling_from(shared: Mapping[str, Any], studio: Studio, redraw: float = 1.0) -> Sampling:
    """Read what `sampling_options` were given; guidance as it suits the base by default."""
    from lora_scene.creating.sampling import Sampling

    guidance = shared["guidance"]
    if guidance is None:
        guidance = studio.backbone.usual_guidance
    return Sampling(shared["steps"], guidance, shared["scheduler"], redraw)


def control_from(shared: Mapping[str, Any]) -> Control:
    """Read what `control_options` were given."""
    from lora_scene.creating.control import Control
    from lora_scene.creating.placing import Place
    from lora_scene.creating.strength import parse_amount

    return Control(
        tuple(Place.parse(text) for text in shared["places"]),
        tuple(parse_amount(text) for text in shared["strengths"]),
        tuple(parse_amount(text) for text in shared["emphases"]),
    )

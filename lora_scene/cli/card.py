"""`lora-scene card`: the page that a hub shows of an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import BaseOptions, base_options, folder_argument, look_at
from lora_scene.cli.terminal import note
from lora_scene.cli.values import repository

if TYPE_CHECKING:
    from lora_scene.adapters.adapter import Adapter


@click.command()
@folder_argument
@click.option("--repo", callback=repository, help="Hub id that snippets load from.  [default: DIR]")
@click.option("--name", help="Its title, and of files.  [default: that of DIR]")
@click.option("--license", "licence", default="", help="SPDX id.  [default: the base's usual one]")
@click.option("--force", is_flag=True, help="Replace a README.md written or edited by hand.")
@click.option("--draw", is_flag=True, help="Draw its gallery first: the recipe's sample prompts.")
@base_options
def command(
    folder: Path,
    repo: str | None,
    name: str | None,
    licence: str,
    force: bool,
    draw: bool,
    base: BaseOptions,
) -> None:
    """Write DIR/README.md: gallery, handles, snippets that run, training details, limits."""
    from lora_scene.adapters.card_checks import check_card
    from lora_scene.adapters.exports import check_name
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.gallery import last_samples, write_sheet
    from lora_scene.adapters.location import plain_name
    from lora_scene.adapters.model_card import CardFacts, write_card
    from lora_scene.files import check_target, write_text

    check_target(folder, ["README.md"], force=force)
    name = name or plain_name(folder)
    check_name(name)
    adapter = read_adapter(folder)
    if draw:
        _draw(folder, adapter, base)
    samples = last_samples(folder, adapter)
    sheet = write_sheet(folder, delivered=sum(adapter.info.steps)) if samples else None
    facts = CardFacts(
        name,
        repo or "",
        licence,
        samples,
        folder.resolve().name,
        has_sheet=sheet is not None,
    )
    text = write_card(adapter, facts)
    check_card(text, folder)
    write_text(folder / "README.md", text, force=force)
    click.echo(f"wrote {folder / 'README.md'}: {len(samples)} picture(s)")
    if not samples:
        note("it has no pictures; --draw draws some with the adapter as it is")


def _draw(folder: Path, adapter: Adapter, base: BaseOptions) -> None:
    """Draw what training would have drawn after its last step."""
    from PIL import Image

    from lora_scene.adapters.gallery import prompts_of, save_samples
    from lora_scene.cli.progress import drawing_bar
    from lora_scene.creating.encoding import left_out
    from lora_scene.creating.generation import draw
    from lora_scene.creating.requests import Request, Sampling
    from lora_scene.creating.studio import read_cast
    from lora_scene.learning.samples import N_STEPS

    cast, info = read_cast([folder]), adapter.info
    requests = [Request(p, seed=info.seed, sampling=Sampling(N_STEPS)) for p in prompts_of(adapter)]
    requests = look_at(cast, requests)
    studio = base.open(cast)
    too_long = left_out(studio, [request.prompt for request in requests])
    requests = [request for request in requests if request.prompt not in too_long]
    with drawing_bar(f"drawing {len(requests)}", len(requests)) as tick:
        drawn = dict(draw(studio, requests, tick=tick))
    pictures = [Image.fromarray(drawn[index].pixels) for index in sorted(drawn)]
    prompts = [request.prompt for request in requests]
    save_samples(pictures, prompts, folder, sum(info.steps), drawn_by=adapter)

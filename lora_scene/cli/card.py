"""`lora-scene card`: the page that a hub shows of an adapter."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.paths import GIVEN


@click.command()
@click.argument("folder", metavar="DIR", type=GIVEN)
@click.option("--repo", help="Hub id that its snippets load from.  [default: DIR]")
@click.option("--name", help="Its title.  [default: that of DIR]")
@click.option("--license", "licence", default="", help="SPDX id.  [default: the base's usual one]")
@click.option("--force", is_flag=True, help="Replace a README.md written or edited by hand.")
def command(folder: Path, repo: str | None, name: str | None, licence: str, force: bool) -> None:
    """Write DIR/README.md: gallery, handles, snippets that run, training details, limits."""
    from lora_scene.adapters.attachment import plain_name
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.gallery import last_samples
    from lora_scene.adapters.model_card import CardFacts, check_card, write_card
    from lora_scene.files import check_target, write_text

    check_target(folder, ["README.md"], force=force)
    adapter = read_adapter(folder)
    samples = last_samples(folder, adapter)
    facts = CardFacts(
        name or plain_name(folder), repo or "", licence, samples, folder.resolve().name
    )
    text = write_card(adapter, facts)
    check_card(text, folder)
    write_text(folder / "README.md", text, force=force)
    click.echo(f"wrote {folder / 'README.md'}: {len(samples)} picture(s)")

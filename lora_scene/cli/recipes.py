"""`lora-scene recipes`: list, show and copy recipes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lora_scene.cli.options import json_option, overrides_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.terminal import console, shell
from lora_scene.cli.values import once


@click.group("recipes", invoke_without_command=True, short_help="List, show and copy recipes.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the recipes; `show NAME` prints one, `copy NAME FILE` makes one your own."""
    from lora_scene.cli.folded_table import FoldedTable
    from lora_scene.recipe import load_recipe, recipe_names

    if ctx.invoked_subcommand:
        if as_json:
            raise click.UsageError("--json lists recipes; show prints one as TOML")
        return
    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        click.echo(json.dumps({recipe.name: recipe.description for recipe in recipes}, indent=2))
        return
    table = FoldedTable("recipe", "what it is", "base", "size", box=None, header_style="bold")
    for recipe in recipes:
        size = f"{recipe.base.resolution} px" if recipe.base.resolution else "the base's"
        table.add_row(recipe.name, recipe.description, recipe.base.model, size)
    console().print(table)
    click.echo("\nnext: lora-scene recipes show NAME, or lora-scene recipes copy NAME my.toml")


@command.command("show")
@click.argument("name")
@click.option("--resolved", is_flag=True, help="Every setting, defaults included.")
@overrides_option
def show(name: str, resolved: bool, overrides: tuple[str, ...]) -> None:
    """Print a recipe with its comments."""
    from lora_scene.recipe import dump_recipe, load_recipe, recipe_text

    if overrides or resolved:
        click.echo(dump_recipe(load_recipe(name, once(overrides))), nl=False)
    else:
        click.echo(recipe_text(name), nl=False)


@command.command("copy")
@click.argument("name")
@click.argument("file", type=GIVEN)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def copy(name: str, file: Path, force: bool) -> None:
    """Copy a recipe to FILE, to change it."""
    from lora_scene.errors import RecipeError
    from lora_scene.files import check_file, write_bytes
    from lora_scene.recipe import recipe_text, refuse_orphan

    text = recipe_text(name)
    if file.suffix != ".toml":
        hint = str(file.with_suffix(".toml") if file.suffix.lower() == ".toml" else f"{file}.toml")
        raise RecipeError("a recipe's file ends with .toml", where=file, hint=hint)
    refuse_orphan(name, file)
    check_file(file, force=True)
    if file.exists() and not force:
        raise RecipeError("the file exists", where=file, hint="take another name, or pass --force")
    write_bytes(file, text.encode("utf-8"), force=force)
    following = shell("lora-scene", "train", "SCENE", "--recipe", file, "--out", "OUT")
    click.echo(f"wrote {file}\nnext: {following}")

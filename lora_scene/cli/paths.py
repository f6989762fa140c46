"""Paths on the command line: none is empty, and where something will be written is looked at first.

A target is checked while the command line is read: before a base is loaded, or anything is learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_place(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Complete what is a name or a path: a recipe's name where one begins so, else by the shell."""
    from lora_scene.recipe import recipe_names

    names = recipe_names() if param.name == "recipe" and incomplete else ()
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


class GivenPath(click.ParamType):  # type: ignore[type-arg]
    """A path of something that is read."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse an empty path, which would mean the current folder."""
        if str(value) == "":
            self.fail("an empty path; the current folder is `.`", param, ctx)
        if "\0" in str(value):
            self.fail("a path holds no zero character", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave paths to the shell."""
        return complete_place(ctx, param, incomplete)


class ExistingPath(click.Path):
    """A path of something that must be there: of one kind."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no path before it is looked for."""
        return super().convert(GIVEN.convert(value, param, ctx), param, ctx)


class TargetFolder(GivenPath):
    """A folder that will be written into."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse a place that cannot hold files."""
        from lora_scene.files import check_target

        return check_target(super().convert(value, param, ctx))


class TargetFile(GivenPath):
    """A file that will be written, where there is none, or one of ours."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse a place that cannot hold the file, or holds what is not ours."""
        from lora_scene.files import check_file

        return check_file(super().convert(value, param, ctx))


GIVEN, TARGET_FOLDER, TARGET_FILE = GivenPath(), TargetFolder(), TargetFile()
EXISTING_FILE = ExistingPath(path_type=Path, exists=True, dir_okay=False)
EXISTING_FOLDER = ExistingPath(path_type=Path, exists=True, file_okay=False)

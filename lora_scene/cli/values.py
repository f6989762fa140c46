"""What options are read as: seeds, finite numbers, sizes, and records of several options."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lora_scene.creating.limits import MAX_AMOUNT, MAX_SEED, SIDES
from lora_scene.errors import AdapterError
from lora_scene.size import Size

Command = TypeVar("Command", bound=Callable[..., Any])

DRAWN_SEEDS = 2**32  # what other programs can take, too
COUNT = click.IntRange(1, 100_000)  # of pictures and the like: more is a slip of the finger


class Seed(click.IntRange):
    """A seed; -1 draws one, and prints it."""

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read a whole number from -1 on."""
        seed: int = super().convert(value, param, ctx)
        if seed == -1:
            seed = random.SystemRandom().randrange(DRAWN_SEEDS)
            click.echo(f"note: drew seed {seed}", err=True)
        return seed


class Number(click.FloatRange):
    """A finite number; infinities and NaN would draw black pictures."""

    def _describe_range(self) -> str:
        """Return the range for the help; of a slip of the finger there is none to tell."""
        is_plain = self.max is None or self.min == -self.max
        return "" if is_plain else super()._describe_range()

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read a number within the range."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value!r:.40} is not a finite number", param, ctx)
        try:
            number: float = super().convert(value, param, ctx)
        except click.BadParameter:  # which tells the range as the help does: in part not at all
            self.fail(f"{value!s:.40} is not in the range {super()._describe_range()}", param, ctx)
        return number


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers of one kind with commas between."""

    name = "numbers"

    def __init__(self, kind: Number) -> None:
        """Take each to be of a kind."""
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> list[float]:
        """Read all of them."""
        parts = value if isinstance(value, list) else str(value).split(",")
        return [self.kind.convert(part, param, ctx) for part in parts]


class PictureSize(click.ParamType):  # type: ignore[type-arg]
    """`512` or `512x768`, pixels, as a `Size`."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> Size:
        """Read a side, or two."""
        try:
            size = Size.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        least, most = SIDES
        if not all(least <= side <= most and side % least == 0 for side in size):
            expected = f"multiples of {least} pixels up to {most}"
            self.fail(f"{value!r:.40}: sides are {expected}", param, ctx)
        return size


SEED = Seed(-1, MAX_SEED)
WEIGHT = Number(-MAX_AMOUNT, MAX_AMOUNT)


def repository(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Read the name of a repository on a hub."""
    from lora_scene.adapters.staging import check_repository

    try:
        if value is not None:
            check_repository(value)
    except AdapterError as error:
        said = f"{error.what}, such as {error.expected}: {error.got}"
        raise click.BadParameter(said) from error
    return value


def many(flag: str, field: str, form: str, explanation: str) -> Callable[[Command], Command]:
    """Declare an option that may be given several times."""
    return click.option(flag, field, multiple=True, metavar=form, help=explanation)


def once(settings: Sequence[str]) -> list[str]:
    """Return settings as they are, none of them given two values.

    Args:
        settings: `section.key=value` each.

    Raises:
        click.UsageError: One has two: by `--set` twice, or by an option of its own as well.
    """
    given: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        key, value = key.strip(), value.strip().strip("\"'")
        if given.setdefault(key, value) != value:
            raise click.UsageError(f"{key} is given twice: {given[key]} and {value}")
    return list(settings)


def refuse_idle(fields: Iterable[str], why: str) -> None:
    """Refuse options that were given in the call at hand, and that nothing would look at.

    Args:
        fields: The options, by the names under which the command takes them.
        why: What makes them idle.

    Raises:
        click.UsageError: One was given.
    """
    ctx, idle = click.get_current_context(), set(fields)
    typed = ParameterSource.COMMANDLINE
    given = [
        param.opts[-1]
        for param in ctx.command.params
        if param.name in idle and ctx.get_parameter_source(param.name) is typed
    ]
    if given:
        raise click.UsageError(f"{why}; leave out {', '.join(given)}")


def fields_of(*kinds: type) -> list[str]:
    """Return the names under which commands take the options of `packed` records."""
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


def packed(
    name: str, kind: type, options: Sequence[Callable[[Command], Command]]
) -> Callable[[Command], Command]:
    """Return a decorator that adds options and hands them to the command as one record.

    Args:
        name: The command's argument that takes the record.
        kind: A dataclass whose fields are the options' names.
        options: click's options, in the order of the help.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def unpacked(**values: Any) -> Any:
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
            return command(**values, **{name: kind(**own)})

        decorated: Any = unpacked
        for option in reversed(options):
            decorated = option(decorated)
        return typing.cast(Command, decorated)

    return decorate

"""The command line's root: it finds the verbs, loads only the one that is called.

Every verb is a module of this package that holds a click command named `command`.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

import click

import lora_scene
from lora_scene.cli.terminal import note, shell
from lora_scene.errors import LoraSceneWarning, did_you_mean
from lora_scene.faults import sentence
from lora_scene.written import noting_written

VERBS: dict[str, dict[str, str]] = {
    "Begin": {
        "demo": "Run the whole journey, offline, in minutes.",
        "page": "Do it all in the browser: from a click to pictures.",
    },
    "Learn": {
        "mask": "Make a scene from a photo: boxes, points, strokes, words.",
        "check": "Look at a scene: coverage, overlap, mistakes.",
        "train": "Learn a scene's handles and adapters.",
        "ask": "Ask a running training for a sample, a snapshot or a good end.",
        "report": "Write the page of a training, or of several side by side.",
        "pick": "Choose between a training's snapshots and weights.",
        "recipes": "List, show and copy recipes.",
    },
    "Use": {
        "generate": "Draw pictures from prompts with handles.",
        "edit": "Redraw regions of a photo.",
        "complete": "Fill holes in a photo, or grow its canvas.",
        "interpolate": "Draw the frames between two pictures.",
        "decompose": "Draw each concept of a scene alone.",
        "variations": "Arrange a scene's concepts anew.",
    },
    "Share": {
        "export": "Write an adapter for diffusers, ComfyUI, A1111 and others.",
        "verify": "Load exported files as their readers would.",
        "inspect": "Show what is in an adapter's files.",
        "merge": "Make one adapter of several.",
        "card": "Write the page that a hub shows of an adapter.",
        "push": "Publish an adapter on a model hub.",
        "pull": "Fetch an adapter from a hub, and check it.",
    },
    "Judge": {
        "evaluate": "Measure an adapter on its scene.",
        "benchmark": "Run a protocol of methods, scenes and seeds.",
        "study": "Ask people which pictures are better.",
    },
    "Machine": {
        "doctor": "Look at device, memory, libraries and disk.",
        "estimate": "Estimate a recipe's memory without running it.",
    },
}


INTERRUPTED = 130  # as shells count signals
BEGINS_ANEW = "the same command again begins anew"
GOES_ON = "the same command again goes on with what is kept"
DRAWS_ANEW = f"{BEGINS_ANEW}, and a picture that comes out the same is not written twice"
AFTER_INTERRUPTION = {  # what comes of what is kept; of all other verbs `BEGINS_ANEW`
    **dict.fromkeys(("demo", "train", "pick", "benchmark"), GOES_ON),
    **dict.fromkeys(("generate", "decompose", "variations", "interpolate"), DRAWS_ANEW),
    "evaluate": f"{GOES_ON}; without --out nothing is",
    "ask": "a wish that stands in the folder is taken up after the training's step",
    "push": "the hub has all of it or nothing, as its page tells; the same command sends it again",
}
SAVES_MEMORY = (  # a verb that has the option can be called so; the largest gain first
    ("restart", "what `lora-scene estimate --switches` lists"),  # a training's
    ("methods", "recipes with what `lora-scene estimate --switches` lists"),  # a benchmark's
    ("batch", "--batch 1"),
    ("quantization", "--quantization nf4"),
    ("size", "a smaller --size"),
    ("quantization", "--dtype bf16"),  # a base's; the --dtype of exports is their files'
)


class VerbGroup(click.Group):
    """A group whose verbs are imported when they are called, and listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the verbs in the order of `VERBS`."""
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"lora_scene.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Offer the nearest verbs for one that does not exist."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            near = did_you_mean(args[0], self.list_commands(ctx)) or "see lora-scene --help"
            ctx.fail(f"no verb {args[0]!r}; {near}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _refuse_slips(command, rest, ctx)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a chapter of `VERBS`."""
        for chapter, verbs in VERBS.items():
            with formatter.section(chapter):
                formatter.write_dl(list(verbs.items()))


def _refuse_slips(command: click.Command, words: list[str], parent: click.Context) -> None:
    """Refuse an option that takes one value and is given several, or none: an empty text.

    click keeps the last of several alone, and the text of a shell's unset variable would count as
    no option. Texts that are empty by default, and prompts, may be empty.

    Raises:
        click.UsageError: There is one.
    """
    # what else is wrong, the command tells; click keeps the help option that it first makes
    ctx = click.Context(command, parent=parent, resilient_parsing=True)
    values, rest, order = command.make_parser(ctx).parse_args(list(words))
    single = [p for p in order if isinstance(p, click.Option) and not (p.multiple or p.is_flag)]
    for option, times in Counter(single).items():
        if times > 1:
            raise click.UsageError(f"{option.opts[-1]} is given {times} times, and takes one value")
        may_be_empty = option.default == "" or option.name == "prompt"
        if option.type is click.STRING and values[option.name] == "" and not may_be_empty:
            raise click.UsageError(f"{option.opts[-1]} is empty; give it a value, or leave it out")
    if isinstance(command, click.Group) and rest:
        within = command.get_command(ctx, rest[0])
        if within is not None:
            _refuse_slips(within, rest[1:], ctx)


@click.command(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lora_scene.__version__, prog_name="lora-scene")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def root(ctx: click.Context, debug: bool) -> None:
    """Learn the things of one photo, and draw them anew.

    A first success, without any download: lora-scene demo
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Run the command line; the package's errors become messages and exit code 1."""
    # torch's matrix products then round alike at any address: a resumed run ends as an unbroken one
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    debug = "--debug" in sys.argv
    warnings.showwarning = _remark
    if not debug:
        _quieten()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        with noting_written() as written:
            code = root.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo(f"\ninterrupted: {_kept(written, sys.argv)}", err=True)
        code = INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # libraries in Rust panic past Exception
        if debug:
            raise
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(_told(error), err=True)
        code = getattr(error, "exit_code", 1)
    finally:  # a late Ctrl-C meets libraries that are closing, and nothing that it could stop
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: BaseException) -> str:
    """Say what stopped a verb; where not even that finds memory, say so."""
    try:
        again = shell("lora-scene", "--debug", *sys.argv[1:])
        return sentence(error, hint=f"{again} shows where", saves_memory=_saves_memory(sys.argv))
    except MemoryError:
        return "the memory ran out"


def _saves_memory(words: Sequence[str]) -> str:
    """Return what of a call's options would take less memory."""
    command = root.get_command(click.Context(root), _verb(words))
    names = [param.name for param in command.params] if command else []
    return "; ".join(less for name, less in SAVES_MEMORY if name in names)


def _kept(written: Iterable[Path], words: Sequence[str]) -> str:
    """Say what an interrupted call has written, and what the same call would do with it."""
    paths = [path for path in written if path.exists()]  # what lay aside is gone by now
    told = "nothing was written"
    if paths:
        others = f", and {len(paths) - 1} before it" if len(paths) > 1 else ""
        told = f"{paths[-1]} is written{others}"
    return f"{told}; {AFTER_INTERRUPTION.get(_verb(words), BEGINS_ANEW)}"


def _verb(words: Sequence[str]) -> str:
    """Return the verb of a call, or nothing."""
    verbs = root.list_commands(click.Context(root))
    return next((word for word in words[1:] if word in verbs), "")


def _remark(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show the package's warnings as sentences, the libraries' as Python does."""
    if issubclass(category, LoraSceneWarning):
        note(str(message), warning=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True)


def _quieten() -> None:
    """Keep the libraries' notes to their developers away from people; --debug shows them."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("always", category=LoraSceneWarning)

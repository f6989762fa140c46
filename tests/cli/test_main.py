from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from lora_scene import faults
from lora_scene.cli.main import AFTER_INTERRUPTION, VERBS, main, root
from lora_scene.cli.values import Number
from lora_scene.errors import LoraSceneError
from lora_scene.file_groups import scratch_folder, written_together
from lora_scene.files import write_text

ALL_VERBS = [verb for verbs in VERBS.values() for verb in verbs]


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_listed_verb_exists_and_has_help(verb):
    result = CliRunner().invoke(root, [verb, "--help"], terminal_width=80)
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    assert [line for line in result.output.splitlines() if len(line) > 80] == []
    assert result.output.isascii()  # any console shows it
    listed = result.output.partition("Commands:")[2]
    assert "..." not in listed, "a sentence is cut"
    assert CliRunner().invoke(root, [verb, "-h"], terminal_width=80).output == result.output


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_is_a_click_command_whose_numbers_have_ends(verb):
    module = importlib.import_module(f"lora_scene.cli.{verb.replace('-', '_')}")
    assert isinstance(module.command, click.Command)
    commands = getattr(module.command, "commands", {"": module.command}).values()
    for option in (param for command in commands for param in command.params):
        kind = option.type
        assert kind not in (click.INT, click.FLOAT), f"{option.name} is unbounded"
        if isinstance(kind, click.FloatRange):
            assert isinstance(kind, Number), f"{option.name} may be NaN"
        if isinstance(kind, click.IntRange):
            assert None not in (kind.min, kind.max), f"{option.name} has no end"


def test_help_lists_all_verbs_by_chapter():
    output = CliRunner().invoke(root, ["--help"]).output
    assert all(chapter in output for chapter in VERBS)
    assert all(verb in output for verb in ALL_VERBS)


def test_a_misspelt_verb_gets_the_nearest_one():
    result = CliRunner().invoke(root, ["trian"])
    assert result.exit_code == 2
    assert "did you mean train" in result.output


def run_module(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lora_scene", *args], capture_output=True, text=True, check=False
    )


def test_a_callers_mistake_is_a_message_and_exit_code_1():
    result = run_module("check", "no/such/scene")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in run_module("--debug", "check", "no/such/scene").stderr


def test_no_help_imports_what_takes_long():
    code = f"""
import sys
from click.testing import CliRunner
from lora_scene.cli.main import root
for verb in ["--help", *{ALL_VERBS}]:
    assert CliRunner().invoke(root, [verb, "--help"]).exit_code == 0, verb
    slow = {{"torch", "diffusers", "cv2", "scipy", "numpy", "PIL", "rich"}} & set(sys.modules)
    assert not slow, (verb, slow)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Panic(BaseException):
    """What libraries in Rust raise."""


def outcome(monkeypatch, capsys, error, *flags):
    """Return the exit code and what is said where a verb raises `error`."""

    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("lora_scene.cli.doctor").command, "callback", fails)
    monkeypatch.setattr(sys, "argv", ["lora-scene", *flags, "doctor"])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LoraSceneError("it rains"), 1, "error: it rains"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written; the same command"),
        (MemoryError(), 1, "the memory ran out"),
        (OSError(28, "No space left on device", "a.png"), 1, "a.png: the disk is full"),
        (click.UsageError("what?"), 2, "Error: what?"),
        (ZeroDivisionError("x" * 10**6), 1, "a fault of this program; please report it"),
        (Panic("ThreadPoolBuildError: unavailable"), 1, "the memory ran out"),
        (RecursionError("deep"), 1, "lora-scene --debug doctor shows where"),
    ],
)
def test_every_end_has_a_sentence_and_an_exit_code(monkeypatch, capsys, error, code, said):
    ended, told = outcome(monkeypatch, capsys, error)
    assert ended == code
    assert said in told
    assert "Traceback" not in told
    assert len(told) < 3000


def test_who_interrupts_is_told_the_files_that_are_there(monkeypatch, capsys, tmp_path):
    def works(**_: object) -> None:
        write_text(tmp_path / "a.toml", "x = 1")
        write_text(tmp_path / "b.toml", "x = 1")
        with written_together(tmp_path / "group") as aside:
            write_text(aside / "c.toml", "x = 1")
        write_text(tmp_path / "a.toml", "x = 2")
        write_text(tmp_path / "gone.toml", "x = 1").unlink()
        with scratch_folder(tmp_path) as scratch, written_together(tmp_path) as aside:
            write_text(scratch / "d.toml", "x = 1")
            write_text(aside / "e.toml", "x = 1")
            raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("lora_scene.cli.doctor").command, "callback", works)
    monkeypatch.setattr(sys, "argv", ["lora-scene", "doctor"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert f"interrupted: {tmp_path / 'a.toml'} is written, and 2 before it; the same" in told
    there = {path.name for path in tmp_path.rglob("*.toml")}
    assert there == {"a.toml", "b.toml", "c.toml"}


def test_what_follows_an_interruption_is_told_of_verbs_that_there_are():
    assert AFTER_INTERRUPTION.keys() <= set(ALL_VERBS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["doctor"], "hint:     close other programs"),
        (["train", "a", "--out", "b"], "order: what `lora-scene estimate --switches` lists"),
        (["evaluate", "a", "--scene", "."], "in this order: --batch 1; --quantization nf4; --dty"),
        (["interpolate", "a", "--from", "b", "--to", "c", "--out", "d"], "nf4; a smaller --size;"),
    ],
)
def test_memory_that_ran_out_is_told_with_what_the_verb_has(monkeypatch, capsys, words, said):
    def fails(**options):
        raise MemoryError

    module = importlib.import_module(f"lora_scene.cli.{words[0]}")
    monkeypatch.setattr(module.command, "callback", fails)
    monkeypatch.setattr(sys, "argv", ["lora-scene", *words])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err


def test_a_fault_where_no_memory_is_left_is_told_as_that(monkeypatch, capsys):
    class Exhausted(bytearray):
        def __init__(self, *_, **__):
            raise MemoryError

    monkeypatch.setattr(faults, "bytearray", Exhausted, raising=False)
    assert "the memory ran out" in outcome(monkeypatch, capsys, SystemError("no exception set"))[1]
    assert "it rains" in outcome(monkeypatch, capsys, LoraSceneError("it rains"))[1]
    monkeypatch.setattr("lora_scene.cli.main.sentence", Exhausted)  # nor for the words
    assert outcome(monkeypatch, capsys, MemoryError()) == (1, "error: the memory ran out\n")


def test_debug_shows_where_a_fault_is(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lora-scene", "--debug", "check", "no/such/scene"])
    with pytest.raises(LoraSceneError):
        main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "scene", "--out", "x", "--from", "a", "--from", "b"], "--from is given 2 times"),
        (["export", "x", "--format", "kohya", "--format=webui", "--out", "y"], "--format is given"),
        (["train", "scene", "--out", "x", "--set", "run.seed=1", "--seed", "2"], "1 and 2"),
        (["train", "s", "--out", "x", "--set", "a.b=1", "--set", "a.b=2"], "a.b is given twice"),
        (["estimate", "--resolution", "512", "--set", "base.resolution=768"], "768 and 512"),
        (["recipes", "show", "mini", "--set", "run.seed=1", "--set", "run.seed=3"], "1 and 3"),
        (["study", "make", "rows", "--out", "a", "--out", "b"], "--out is given 2 times"),
    ],
)
def test_what_takes_one_value_and_is_given_two_is_refused_not_halved(words, said):
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 2
    assert said in result.output


def test_what_may_be_given_twice_is_not_refused():
    words = ["recipes", "show", "mini", "--set", "run.seed=1", "--set", " run.seed = 1"]
    assert "seed = 1" in CliRunner().invoke(root, words).output
    several = ["generate", "no/such", "--prompt", "a", "--prompt", "b", "--out", "x"]
    assert "no such folder" in str(CliRunner().invoke(root, several).exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "s", "--recipe", "", "--out", "x"], "--recipe is empty"),
        (["train", "s", "--recipe=", "--out", "x"], "--recipe is empty"),
        (["train", "s", "--from", "", "--out", "x"], "--from is empty"),
        (["check", "s", "--recipe", ""], "--recipe is empty"),
        (["export", "a", "--base", "", "--out", "x"], "--base is empty"),
        (["evaluate", "a", "--scene", "s", "--judge", ""], "--judge is empty"),
        (["pull", "a/b", "--revision", ""], "--revision is empty"),
    ],
)
def test_an_unset_variable_is_not_taken_for_an_option_that_was_left_out(words, said):
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 2
    assert said in result.output


def test_prompts_and_what_is_empty_by_default_may_be_empty():
    words = ["complete", "no/such", "--photo", "p", "--out", "x.png", "--prompt", ""]
    result = CliRunner().invoke(root, [*words, "--negative", ""])
    assert "is empty" not in result.output + str(result.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_a_ctrl_c_that_comes_when_all_is_done_shows_no_traceback():
    late = "atexit.register(os.kill, os.getpid(), signal.SIGINT)"  # as libraries close, before us
    code = f"import atexit, os, signal, lora_scene.cli.main as cli; {late}; cli.main()"
    words = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

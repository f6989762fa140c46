from __future__ import annotations

import ast
import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.table import Table

import lora_scene
from lora_scene.cli import progress, terminal
from lora_scene.cli.main import _remark, main
from lora_scene.cli.terminal import console, note, shell
from lora_scene.cli.training_view import TrainingView
from lora_scene.errors import LoraSceneWarning
from lora_scene.learning.events import Notice, PhaseStarted, StepDone
from tests.scenes.factory import TOML, write_toml_folder


def test_names_are_shown_as_they_are(capsys):
    table = Table("name [/x]", title="[bold]a[/]")
    table.add_row("[/x] :smile: [red]b[/red] \\")
    console().print(table)
    console().print("[/y]")
    shown = capsys.readouterr().out
    for text in ("name [/x]", "[bold]a[/]", "[/x] :smile: [red]b[/red] \\", "[/y]"):
        assert text in shown


def test_nothing_is_cut_off_in_a_pipe(capsys):
    table = Table("base", box=None)
    table.add_row("organisation/" + "long-name-" * 40)
    console().print(table)
    assert "organisation/" + "long-name-" * 40 in capsys.readouterr().out


def test_notes_break_between_words_wherever_they_come_from(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "WIDE", 30)
    told = "a thing that takes up many more columns than there are"
    note(told)
    TrainingView()(Notice(told))
    _remark(LoraSceneWarning(told), LoraSceneWarning, "a.py", 1)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 30
    assert " ".join(line.strip() for line in lines) == f"note: {told} note: {told} warning: {told}"


def test_every_console_has_the_letters_of_what_the_program_itself_says():
    """Names, which may hold any, are tried below; help is made of the verbs' docstrings."""
    of_files = {"run_page.py", "plots.py", "tables.py", "documents.py"}  # in UTF-8
    letters = {}
    for path in Path(lora_scene.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name not in of_files and not text.isascii():
            nodes = [*ast.walk(ast.parse(text))]
            bare = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}  # docstrings
            if path.parent.name == "cli":
                bare = set()
            said = [n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in bare]
            letters[path.name] = "".join(map(str, said))
    assert "±" in letters["evaluation_view.py"]
    for encoding in ("cp1252", "cp437", "cp850"):
        for name, text in letters.items():
            assert set(text) <= set(text.encode(encoding, "ignore").decode(encoding)), name


@pytest.mark.parametrize("name", ["a b", "$HOME", "`id`", "a'b", 'a"b', "<bear>", "*", "-x"])
def test_a_command_line_is_read_back_as_its_words(name, monkeypatch):
    assert shlex.split(shell("lora-scene", "train", name)) == ["lora-scene", "train", name]


def test_a_path_is_no_option_whatever_it_begins_with():
    words = shlex.split(shell("lora-scene", "train", Path("-mine"), "--out", Path("a/-b")))
    assert words == ["lora-scene", "train", "./-mine", "--out", "a/-b"]


def test_windows_has_its_own_quotes(monkeypatch):
    monkeypatch.setattr("lora_scene.cli.terminal.os.name", "nt")
    assert shell("lora-scene", "C:\\a b", "<bear>") == 'lora-scene "C:\\a b" <bear>'


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    with progress.drawing_bar("drawing [/x]", 2) as tick:
        for step in (1, 2, 1, 2):
            tick(step, 2)
    lines = capsys.readouterr().err.splitlines()
    heads = [line.split(",")[0] for line in lines]
    assert heads == [f"drawing [/x]: {n} %" for n in (25, 50, 75, 100)]
    assert lines[-1].endswith(", 0 s left")


def test_lines_are_seldom_and_the_last_one_always_comes(capsys):
    with progress.counting_bar("counting") as tell:
        for n in range(1, 101):
            tell(n, 100)
    assert capsys.readouterr().err == "counting: 100 %, 0 s left\n"
    with progress.counting_bar("counting", is_quiet=True) as tell:
        tell(1, 1)
    assert capsys.readouterr().err == ""


def test_training_tells_its_steps_losses_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    view = TrainingView()
    with view.shown():
        view(Notice("a [/x] name"))
        view(PhaseStarted(1, 0, 4, 10, 1))
        for step in range(1, 5):
            losses = {"diffusion": 0.5, "attention": 0.25, "prior": 0.0}
            view(StepDone(1, step, losses, seconds=2.0, n_steps=4))
    told = capsys.readouterr().err
    assert "note: a [/x] name" in told
    assert "phase 1: step 4/4  diff 0.50  atte 0.25  0.5 img/s  0 s left" in told
    assert told.count("s left") == 4


def test_a_next_step_is_quoted(tmp_path):
    from lora_scene.cli.main import root

    target = tmp_path / "my recipes" / "$mine.toml"
    target.parent.mkdir()
    done = CliRunner().invoke(root, ["recipes", "copy", "mini", str(target)])
    line = next(line for line in done.stdout.splitlines() if line.startswith("next:"))
    assert str(target) in shlex.split(line)


def test_a_console_that_lacks_letters_shows_their_codes(monkeypatch, tmp_path):
    """Tables, bars, errors, notes and JSON, through streams that would raise, as Windows' do."""
    name = "\u043c\u043e\u0439 \u2192 caf\xe9"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, with its bars
    write_toml_folder(tmp_path / name, TOML.replace("teddy bear", "\U0001f43b bear"))

    def said(encoding, *words):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["lora-scene", *words])
        with pytest.raises(SystemExit):
            main()
        with progress.counting_bar(name) as tell:
            tell(1, 1)
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
        assert "Traceback" not in err
        assert "100 %" in err
        return out, err

    told = said("cp437", "check", name)[0]
    assert r"\u2192" in told
    assert r"\U0001f43b bear" in told
    assert r"\u2192" in said("cp1252", "inspect", name)[1]
    report = json.loads(said("cp1252", "check", name, "--json")[0])
    assert report["overlay"] == f"{name}_overlay.png"

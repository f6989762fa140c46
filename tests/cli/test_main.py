from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from lora_scene.cli.main import VERBS, root

ALL_VERBS = [verb for verbs in VERBS.values() for verb in verbs]


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_listed_verb_exists_and_has_help(verb):
    result = CliRunner().invoke(root, [verb, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_is_a_click_command_named_command(verb):
    module = importlib.import_module(f"lora_scene.cli.{verb.replace('-', '_')}")
    assert isinstance(module.command, click.Command)


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


def test_help_does_not_import_torch():
    code = (
        "import sys; from click.testing import CliRunner; from lora_scene.cli.main import root;"
        "assert CliRunner().invoke(root, ['--help']).exit_code == 0;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The verbs that ask a running training, and that write its page."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from lora_scene.cli.main import root
from lora_scene.errors import TrainingError
from lora_scene.folder_lock import locked
from lora_scene.learning.asking import TRAINING, asked


def test_a_wish_waits_for_the_training_that_holds_the_folder(tmp_path):
    with locked(tmp_path, purpose=TRAINING):
        told = CliRunner().invoke(root, ["ask", str(tmp_path), "save", "--wait", "0"])
        assert told.exit_code == 0, told.output
        assert "asked, and not done yet" in told.stdout
        assert asked(tmp_path) == {"save"}


def test_nobody_is_asked_where_no_training_runs(tmp_path):
    told = CliRunner().invoke(root, ["ask", str(tmp_path), "stop"])
    assert isinstance(told.exception, TrainingError)
    assert "no training runs in this folder" in str(told.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["ask", "OUT", "sing"], ["report", "OUT", "--to", "run.pdf"]])
def test_what_cannot_be_asked_for_is_a_mistake_of_use(words, tmp_path):
    told = CliRunner().invoke(root, [str(tmp_path) if word == "OUT" else word for word in words])
    assert told.exit_code == 2


def test_a_folder_without_a_run_gets_no_page(tmp_path):
    told = CliRunner().invoke(root, ["report", str(tmp_path)])
    assert isinstance(told.exception, TrainingError)
    assert not list(tmp_path.iterdir())

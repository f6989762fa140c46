from __future__ import annotations

import json
import shutil

from click.testing import CliRunner

from lora_scene.cli.main import root
from tests.workshop import rows as made
from tests.workshop.test_study_analysis import write_answers, write_key


def call(*command: str):
    return CliRunner().invoke(root, ["study", *command], catch_exceptions=False)


def test_study_make_says_what_to_give_out_and_what_to_keep(tmp_path):
    made.write(tmp_path / "results")
    result = call("make", str(tmp_path / "results"), "--out", str(tmp_path / "study"))
    assert result.exit_code == 0
    assert "give this out" in result.stdout
    assert (tmp_path / "study" / "index.html").is_file()


def test_study_says_that_nothing_is_checked(tmp_path):
    made.write(tmp_path / "results")
    for scene in (tmp_path / "results" / "scenes").iterdir():
        shutil.copy(scene / "photo0.png", scene / "photo1.png")
    result = call("make", str(tmp_path / "results"), "--out", str(tmp_path / "study"))
    assert "no check stands between" in result.stderr
    write_key(tmp_path)
    answers = write_answers(tmp_path, "a")
    told = json.loads(answers.read_text())
    told["answers"] = [one for one in told["answers"] if one["trial"] not in ("c0", "c1")]
    answers.write_text(json.dumps(told))
    shown = call("analyse", str(answers)).stdout
    assert "1 of them answered no check, so that nothing tells whether they looked" in shown


def test_study_analyse_prints_scores_and_refuses_to_conclude_from_two(tmp_path):
    write_key(tmp_path)
    files = [str(write_answers(tmp_path, name)) for name in ("a", "b")]
    shown = call("analyse", *files).stdout
    assert "naive" in shown
    assert "Too few answers" in shown
    report = json.loads(call("analyse", *files, "--json").stdout)
    assert report["n_participants"] == 2


def test_study_analyse_shows_tests_where_there_are_enough(tmp_path):
    write_key(tmp_path)
    files = [str(write_answers(tmp_path, f"p{n}", seed=n)) for n in range(12)]
    shown = call("analyse", *files).stdout
    assert "Kruskal-Wallis" in shown
    assert "full - ours" in shown
    assert "cannot be told apart" in shown


def test_study_analyse_needs_a_key(tmp_path):
    assert call("analyse", str(write_answers(tmp_path, "a"))).exit_code == 2

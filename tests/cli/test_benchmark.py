from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lora_scene.cli.main import root
from lora_scene.errors import JudgingError, OutOfMemoryError
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.fingerprints import fingerprint_of
from lora_scene.workshop.protocol import read_protocol
from lora_scene.workshop.results import folder_of, keep_row
from tests.cli.test_evaluate import write_scene
from tests.judging import fakes
from tests.workshop import rows as made

TOML = """
name = "tiny"
base = "nowhere"
[scenes]
all = ["scenes/*"]
[[methods]]
name = "ours"
recipe = "sd15"
scenes = ["all"]
"""


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    write_scene(tmp_path / "scenes" / "a")
    (tmp_path / "protocol.toml").write_text(TOML)
    monkeypatch.setattr("lora_scene.workshop.trials.load_judge", lambda *a, **k: fakes.judge())

    def run(*extra: str):
        command = ["benchmark", str(tmp_path / "protocol.toml"), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(root, [*command, *extra], catch_exceptions=False)

    return run


def test_benchmark_lists_its_runs(benchmark):
    result = benchmark("--list")
    assert result.stdout.split() == ["ours/all-a-s0"]
    assert "1 runs, 1,600 image-forwards" in result.stderr


def test_benchmark_lists_a_part_and_refuses_what_a_list_does_not_heed(benchmark, tmp_path):
    toml = (tmp_path / "protocol.toml").read_text()
    (tmp_path / "protocol.toml").write_text(toml + "\nseeds = [0, 1, 2]\n")
    parts = [benchmark("--list", "--part", f"{i}/2") for i in (1, 2)]
    assert [p.stdout.split() for p in parts] == [
        ["ours/all-a-s0", "ours/all-a-s2"],
        ["ours/all-a-s1"],
    ]
    assert "2 runs, 3,200 image-forwards" in parts[0].stderr
    with pytest.raises(JudgingError, match="no such part"):
        benchmark("--list", "--part", "3/2")
    for idle in (["--json"], ["--max-runs", "1"], ["--known", str(tmp_path / "protocol.toml")]):
        refused = benchmark("--list", *idle)
        assert refused.exit_code == 2
        assert f"leave out {idle[0]}" in refused.output


def leave_row(folder, toml):
    """Leave the row of a protocol's one run in OUT, as it would be made now."""
    (folder / "protocol.toml").write_text(toml)
    protocol = read_protocol(folder / "protocol.toml")
    [run] = protocol.runs()
    made_of = fingerprint_of(protocol, run, scene=load_scene(run.scene))
    row = made.write(folder / "rows", n_scenes=1)[0] | {"scene": "a", "pictures": []}
    named = {"key": run.key, "method": run.method.name, "fingerprint": made_of}
    keep_row(row | named, folder_of(folder / "out", run))


def test_benchmark_reports_what_is_done(benchmark, tmp_path):
    leave_row(tmp_path, TOML)
    result = benchmark("--max-runs", "0", "--json", "--device", "cpu")
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == ["ours/all-a-s0"]
    assert (tmp_path / "out" / "report.html").is_file()
    assert "1 of 1 runs" in result.stderr
    assert "not in the report" not in result.stderr


@pytest.mark.parametrize("is_gone", [False, True], ids=["other prompts", "a method less"])
def test_a_report_holds_no_row_of_another_protocol_and_names_it(benchmark, tmp_path, is_gone):
    method = TOML.partition("[[methods]]")[2]
    other = TOML.replace("[[methods]]", '[drawing]\nprompts = ["a {}"]\n[[methods]]')
    leave_row(tmp_path, TOML.replace("ours", "theirs"))
    leave_row(tmp_path, other)
    if not is_gone:
        text = f"{other}[[methods]]{method.replace('ours', 'theirs')}"
        (tmp_path / "protocol.toml").write_text(text)
    result = benchmark("--max-runs", "0", "--method", "ours", "--device", "cpu")
    assert f"1 of {1 if is_gone else 2} runs are done" in result.stdout
    assert "1 row in OUT is of no run" in result.stderr
    assert "not in the report: theirs/all-a-s0" in result.stderr
    assert "theirs" not in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "runs" / "theirs" / "all-a-s0" / "row.json").is_file()


def test_where_all_rows_are_of_another_protocol_nothing_is_reported(benchmark, tmp_path):
    made.write(tmp_path / "out")
    result = benchmark("--max-runs", "0", "--device", "cpu")
    assert "9 rows in OUT are of no run" in result.stderr
    assert "and 1 more" in result.stderr
    assert "nothing to report" in result.stderr
    assert not (tmp_path / "out" / "report.html").exists()


def test_benchmark_does_the_named_methods_alone(benchmark):
    assert benchmark("--list", "--method", "ours").stdout.split() == ["ours/all-a-s0"]
    result = benchmark("--list", "--method", "theirs")
    assert result.exit_code == 2
    assert "no method theirs; there are ours" in result.output


def test_benchmark_fails_where_memory_left_a_run_undone(benchmark, monkeypatch):
    def large(*_, **__):
        raise OutOfMemoryError("the device ran out of memory", hint="try --set x=1")

    monkeypatch.setattr("lora_scene.workshop.trials.do_run", large)
    with pytest.raises(JudgingError, match="ours/all-a-s0: 1 of 1 runs ran out of memory"):
        benchmark("--device", "cpu")


def test_benchmark_refuses_a_part_that_is_none(benchmark):
    result = benchmark("--part", "two")
    assert result.exit_code == 2
    assert "2/4" in result.output

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lora_scene.adapters.folder import save_adapter
from lora_scene.cli.main import main, root
from lora_scene.creating import generation
from lora_scene.errors import CreationError
from tests import tiny
from tests.adapters import made


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a base's folder and an adapter's folder."""
    home = tmp_path_factory.mktemp("generate")
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1")
    return tiny.folder("sd1", str(home)), str(save_adapter(adapter, home / "scene"))


@pytest.fixture
def run(folders, tmp_path):
    base, _ = folders
    fixed = ["--base", base, "--out", str(tmp_path / "out"), "--device", "cpu"]
    runner = CliRunner()

    def call(*args):
        steps = [] if "--again" in args else ["--steps", "2"]
        arguments = ["generate", *args, *fixed, *steps]
        return runner.invoke(root, arguments, catch_exceptions=False)

    return call


def test_pictures_are_written_and_named_on_stdout(run, folders, tmp_path):
    done = run(folders[1], "--prompt", "a <bear>", "--seed", "1", "--seed", "2", "--grid")
    assert done.exit_code == 0
    written = sorted(str(path) for path in (tmp_path / "out").iterdir())
    assert sorted(done.stdout.split()) == written
    assert len(written) == 2 * 3 + 1
    assert "trained on another base" in done.stderr


def test_scripts_read_json_and_a_weight_beside_the_folder_counts(run, folders):
    done = run(f"{folders[1]}:0.5", "--prompt", "a <bear>", "--json")
    (record,) = json.loads(done.stdout)
    assert record["adapters"][0]["weight"] == 0.5
    assert record["prompt"] == "a <bear>"


def test_prompts_come_from_a_file_too(run, folders, tmp_path):
    (tmp_path / "p.txt").write_text("a <bear> --seed 4\na <bowl> --weight 0\n", "utf-8")
    done = run(folders[1], "--prompts", str(tmp_path / "p.txt"), "--json")
    assert [(r["seed"], r["weight"]) for r in json.loads(done.stdout)] == [(4, 1.0), (0, 0.0)]


def test_seeds_are_counted_up_and_none_comes_twice(run, folders):
    seeds = ["--seed", "3", "--seed", "4", "--count", "2"]
    done = run(folders[1], "--prompt", "a <bear>", *seeds, "--json")
    assert [record["seed"] for record in json.loads(done.stdout)] == [3, 4, 5]


def test_a_picture_is_made_again(run, folders, tmp_path):
    (record,) = json.loads(run(folders[1], "--prompt", "a <bear>", "--json").stdout)
    first = Path(record["path"]).read_bytes()
    (again,) = json.loads(run(folders[1], "--again", record["path"], "--json").stdout)
    assert Path(again["path"]).read_bytes() == first


def test_an_interrupted_call_keeps_its_pictures_and_the_next_writes_none_twice(
    run, folders, tmp_path, monkeypatch, capsys
):
    asked = [folders[1], "--prompt", "a <bear>", "--count", "2", "--base", folders[0]]
    asked += ["--out", str(tmp_path / "out"), "--device", "cpu", "--steps", "2"]
    whole = generation.save_numbered
    drawn = iter((whole, _interrupts))
    monkeypatch.setattr(generation, "save_numbered", lambda *given: next(drawn)(*given))
    monkeypatch.setattr("sys.argv", ["lora-scene", "generate", *asked])
    with pytest.raises(SystemExit, match="130"):
        main()
    (kept,) = (tmp_path / "out").glob("*.png")
    assert f"interrupted: {kept} is written; the same command" in capsys.readouterr().err
    monkeypatch.setattr(generation, "save_numbered", whole)
    run(*asked[:5])
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def _interrupts(*_):
    raise KeyboardInterrupt


def test_the_bare_base_draws_without_an_adapter(run):
    (record,) = json.loads(run("--prompt", "a bear", "--json").stdout)
    assert record["adapters"] == []


def test_a_prompt_is_needed(run, folders):
    assert run(folders[1]).exit_code == 2


def test_an_unknown_handle_names_the_known_ones(run, folders):
    with pytest.raises(CreationError, match="<bear>"):
        run(folders[1], "--prompt", "a <bare>")


def test_two_adapters_work_together(run, folders, tmp_path):
    other = made.adapter(tiny.pipeline("sd1"), "sd1", handles=("<cup>",), seed=5)
    second = str(save_adapter(other, tmp_path / "elsewhere" / "scene"))
    done = run(folders[1], f"{second}:0.6", "--prompt", "a <cup> on a <bowl>", "--json")
    (record,) = json.loads(done.stdout)
    assert [(a["name"], a["weight"]) for a in record["adapters"]] == [
        ("scene", 1.0),
        ("scene_2", 0.6),
    ]


def test_other_settings_into_the_same_folder_number_on(run, folders, tmp_path):
    for guidance in ("2", "3", "3"):
        run(folders[1], "--prompt", "a <bear>", "--guidance", guidance)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000_a_bear_s0.png", "000_a_bear_s0_2.png"]


def test_two_adapters_of_one_handle_draw_together_and_again(run, folders, tmp_path):
    other = save_adapter(made.adapter(tiny.pipeline("sd1"), "sd1", seed=5), tmp_path / "other")
    pair = [folders[1], str(other)]
    with pytest.raises(CreationError, match="--rename bear="):
        run(*pair, "--prompt", "a <bear>")
    names = ("--rename", "bear=cub", "--rename", "bowl=cup")
    (record,) = json.loads(run(*pair, "--prompt", "<bear> <cub>", *names, "--json").stdout)
    assert record["adapters"][1]["renamed"] == {"<bear>": "<cub>", "<bowl>": "<cup>"}
    (again,) = json.loads(run(*pair, "--again", record["path"], "--json").stdout)
    assert again["path"] == record["path"]  # the same bytes: nothing is written anew
    with pytest.raises(CreationError, match=r"more or fewer(.|\n)*expected: \S+:1 .*, other:1"):
        run(folders[1], "--again", record["path"])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--prompt", "a <cup>"),
        ("--prompt", "a <bowl>", "--at", "bear=0,0,1,1"),
        ("--prompt", "a", "--scheduler", "eular"),
    ],
)
def test_what_needs_no_base_is_refused_before_it_is_loaded(run, folders, wrong, monkeypatch):
    loaded = []
    monkeypatch.setattr("lora_scene.creating.studio.load_pipeline", loaded.append)
    with pytest.raises(CreationError):
        run(folders[1], *wrong)
    assert loaded == []


def test_notes_on_prompts_go_to_stderr(run, folders):
    done = run(folders[1], "--prompt", "(a bear:1.3)")
    assert "names no handle" in done.stderr
    assert "an emphasis elsewhere" in done.stderr

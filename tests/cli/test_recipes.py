from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lora_scene.cli import terminal
from lora_scene.cli.main import root
from lora_scene.errors import RecipeError
from lora_scene.recipe import load_recipe, recipe_names, recipe_text


def run(*args: str):
    return CliRunner().invoke(root, ["recipes", *args], catch_exceptions=False)


def test_the_list_names_every_recipe():
    assert set(json.loads(run("--json").stdout)) == set(recipe_names())
    assert all(name in run().stdout for name in recipe_names())


def test_a_narrow_terminal_gets_whole_names_of_bases(monkeypatch):
    monkeypatch.setattr(terminal, "WIDE", 80)
    shown = [line[42:70].strip() for line in run().stdout.splitlines()]
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in "".join(shown)


def test_show_prints_the_file_and_resolved_every_setting():
    assert run("show", "paper").stdout == recipe_text("paper")
    resolved = run("show", "paper", "--resolved", "--set", "lora.rank=4").stdout
    assert "rank = 4" in resolved
    assert "max_grad_norm = 1.0" in resolved
    refused = run("--json", "show", "paper")
    assert refused.exit_code == 2
    assert "show prints one as TOML" in refused.stderr


def test_a_copy_extends_the_recipe_that_the_original_extends_or_is_refused(tmp_path):
    for folder, rank in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "base.toml").write_text(f'extends = "paper"\n[lora]\nrank = {rank}\n')
    mine = tmp_path / "a" / "mine.toml"
    mine.write_text('extends = "base.toml"\n')
    assert run("copy", str(mine), str(tmp_path / "a" / "copy.toml")).exit_code == 0
    assert load_recipe(tmp_path / "a" / "copy.toml").lora.rank == 3
    with pytest.raises(RecipeError, match=r"leads elsewhere(.|\n)*--resolved"):
        run("copy", str(mine), str(tmp_path / "b" / "copy.toml"))
    assert not (tmp_path / "b" / "copy.toml").exists()
    named = run("copy", str(tmp_path / "a" / "base.toml"), str(tmp_path / "b" / "copy.toml"))
    assert named.exit_code == 0, "what it extends is a shipped one"


def test_a_copy_is_a_recipe_and_is_never_overwritten_unasked(tmp_path):
    mine = tmp_path / "mine.toml"
    run("copy", "sdxl", str(mine))
    assert load_recipe(mine).base == load_recipe("sdxl").base
    with pytest.raises(RecipeError, match="the file exists"):
        run("copy", "paper", str(mine))
    with pytest.raises(RecipeError, match=r"ends with \.toml[\s\S]*other\.toml"):
        run("copy", "paper", str(tmp_path / "other"))  # no verb would read it
    with pytest.raises(RecipeError, match=r"(?m)other\.toml$"):
        run("copy", "paper", str(tmp_path / "other.TOML"))
    run("copy", "paper", str(mine), "--force")
    assert load_recipe(mine).base == load_recipe("paper").base

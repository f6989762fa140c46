from __future__ import annotations

from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from lora_scene.cli.main import root
from lora_scene.cli.values import SEED, Number, PictureSize, packed


@dataclass(frozen=True)
class Two:
    seed: int
    weight: float


two = packed(
    "two",
    Two,
    (
        click.option("--seed", type=SEED, default=0),
        click.option("--weight", type=Number(min=-2, max=2), default=1.0),
    ),
)


@click.command()
@click.option("--size", type=PictureSize())
@two
def command(size, two):
    click.echo(f"{size} {two.seed} {two.weight}")


def run(*args):
    return CliRunner().invoke(command, args)


def test_options_arrive_as_one_record():
    assert run("--seed", "7", "--weight", "0.5", "--size", "64x128").stdout == "64x128 7 0.5\n"
    assert run().stdout == "None 0 1.0\n"
    assert run("--help").stdout.index("--seed") < run("--help").stdout.index("--weight")


def test_a_seed_of_minus_one_is_drawn_and_printed():
    done = [run("--seed", "-1") for _ in range(2)]
    seeds = [one.stdout.split()[1] for one in done]
    assert seeds[0] != seeds[1]
    assert [one.stderr for one in done] == [f"note: drew seed {seed}\n" for seed in seeds]
    assert all(0 <= int(seed) < 2**32 for seed in seeds)


@pytest.mark.parametrize("seed", ["-2", str(2**63), str(2**70), "1.5", "nan", "9" * 5000, ""])
def test_a_seed_out_of_range_is_a_sentence(seed):
    done = run("--seed", seed)
    assert done.exit_code == 2
    assert "-1<=x<=9223372036854775807" in done.stderr or "not a valid integer" in done.stderr


def test_the_largest_seed_is_one():
    assert str(2**63 - 1) in run("--seed", str(2**63 - 1)).stdout


@pytest.mark.parametrize(
    ("weight", "told"),
    [("nan", "finite"), ("inf", "finite"), ("-inf", "finite"), ("1e999", "finite"),
     ("3", "3 is not in the range -2<=x<=2"), ("x", "not a valid float")],
)  # fmt: skip
def test_a_number_is_finite_and_within_its_range(weight, told):
    done = run("--weight", weight)
    assert done.exit_code == 2
    assert "--weight" in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    "size", ["0", "7", "63", "60", "64x", "x64", "64x65", "8200", "9" * 99, "-8"]
)
def test_a_size_is_of_whole_cells(size):
    assert run("--size", size).exit_code == 2


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("evaluate", "--weight"), ("evaluate", "--guidance"), ("generate", "--weight"),
     ("generate", "--guidance"), ("merge", "--weights"), ("edit", "--guidance"),
     ("interpolate", "--from-weight")],
)  # fmt: skip
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_no_verb_takes_what_is_not_finite(verb, flag, value, tmp_path):
    needed = {
        "evaluate": ["x", "--scene", "x"], "generate": ["x", "--prompt", "a", "--out"],
        "merge": ["x", "--out"],
        "edit": ["x", "--photo", "x", "--mask", "x", "--prompt", "a", "--out"],
        "interpolate": ["x", "--from", "a", "--to", "b", "--out"],
    }[verb]  # fmt: skip
    target = [str(tmp_path / "new.png")] if needed[-1] == "--out" else []
    done = CliRunner().invoke(root, [verb, *needed, *target, flag, value])
    assert done.exit_code == 2, done.output
    assert "finite" in done.output
    assert flag in done.stderr


def test_the_help_shows_no_range_where_there_is_none():
    shown = CliRunner().invoke(root, ["generate", "--help"]).output
    assert "None" not in shown


@pytest.mark.parametrize(
    ("words", "typed", "expected"),
    [(["report"], "runs/o", ("file", "runs/o")), (["generate"], "o", ("file", "o")),
     (["train", "--recipe"], "min", ("plain", "mini")), (["ask", "out"], "st", ("plain", "stop"))],
)  # fmt: skip
def test_a_shell_is_told_what_completes_a_word(words, typed, expected):
    from click.shell_completion import BashComplete

    found = BashComplete(root, {}, "lora-scene", "X").get_completions(words, typed)
    assert [(item.type, item.value) for item in found] == [expected]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("generate a --again p.png --out OUT --seed 5 --size 64", "--seed, --size"),
        ("generate a --again p.png --out OUT --negative dark --at b=0,0,1,1", "--negative, --at"),
        ("export a --out OUT --base x --base-config y", "--base, --base-config"),
        ("export a --out OUT --format pipeline --name x --author me", "--name, --author"),
        ("pick a --take 3:1 --judge mini", "--judge"),
        ("pick a --clip x --finder clipseg", "--clip, --finder"),
        ("mask p.png --list --box a=0,0,9,9", "--box"),
    ],
)
def test_what_nothing_would_look_at_is_refused(words, idle, tmp_path):
    args = [str(tmp_path / "out") if word == "OUT" else word for word in words.split()]
    done = CliRunner().invoke(root, args)
    assert done.exit_code == 2
    assert sorted(done.stderr.rpartition("leave out ")[2].split()) == sorted(idle.split())

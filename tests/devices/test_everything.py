"""What is run by hand on the device that is not there leaves out no verb and no method."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest

from lora_scene.cli.main import VERBS, root
from lora_scene.workshop.protocol import read_protocol
from tests import tiny
from tests.devices import __main__ as by_hand

NOT_ON_IT = {"doctor"}  # it tries bitsandbytes' layers, which the device cannot hold


@pytest.mark.slow
def test_every_verb_that_takes_a_device_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_hand, "made_bases", lambda folder: dict.fromkeys(tiny.FAMILIES, ""))
    context = click.Context(root)
    verbs = {verb: root.get_command(context, verb) for part in VERBS.values() for verb in part}
    asked = {
        verb
        for verb, command in verbs.items()
        if any("--device" in parameter.opts for parameter in command.params)
    }
    lines = list(by_hand.everything(tmp_path))
    assert {verb for module, verb, *_ in lines if module == "lora_scene"} == asked - NOT_ON_IT
    assert all(line[line.index("--device") + 1] == "absent" for line in lines)


def test_the_gpu_s_protocol_is_shrunk_with_all_its_methods(tmp_path: Path) -> None:
    small = read_protocol(by_hand.protocol(tmp_path))
    text = (by_hand.ROOT / "benchmarks" / "protocols" / "gpu.toml").read_text("utf-8")
    whole = tomllib.loads(text)["methods"]
    assert [method.name for method in small.methods] == [method["name"] for method in whole]
    assert len(list(small.runs())) == len(whole), "one scene, one seed"

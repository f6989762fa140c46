"""Hostile files: a clear error of ours, no traceback of another kind, no hang."""

from __future__ import annotations

import json
import os
import random
import time

import pytest
import torch
from click.testing import CliRunner

from lora_scene.adapters import untrusted
from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.folder import adapter_files, read_adapter, save_adapter
from lora_scene.adapters.formats import factors
from lora_scene.adapters.formats.factors import even_factors
from lora_scene.adapters.inspection import inspect_path
from lora_scene.adapters.untrusted import read_header, read_tensors
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError
from tests import tiny
from tests.adapters import made

N_MUTANTS = 200
LORA = "pytorch_lora_weights.safetensors"


def packed(header, body=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "nothing": b"",
    "too short": b"\x01\x02",
    "a pickle": b"\x80\x04\x95" + b"\x00" * 64,
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header longer than the file": (10**6).to_bytes(8, "little") + b"{}",
    "no JSON": packed(b"hello"),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "a list": packed(b"[]"),
    "deep nesting": packed(b'{"a":' * 50_000),
    "an endless number": packed(b'{"a": ' + b"9" * 10_000 + b"}"),
    "a tensor twice": packed(b'{"a": 1, "a": 2}'),
    "an entry that is a list": packed({"a": []}),
    "an entry without shape": packed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"0000"),
    "an unknown dtype": packed({"a": entry(dtype="OBJ")}, b"0000"),
    "a dtype that is a list": packed({"a": entry(dtype=["F32"])}, b"0000"),
    "a negative size": packed({"a": entry(shape=(-1, -1))}, b"0000"),
    "a size that is no integer": packed({"a": entry(shape=(1.0,))}, b"0000"),
    "a size that is a boolean": packed({"a": entry(shape=(True,))}, b"0000"),
    "an enormous shape": packed({"a": entry(shape=(2**40, 2**40))}, b"0000"),
    "too many dimensions": packed({"a": entry(shape=(1,) * 99)}, b"0000"),
    "shape and size that disagree": packed({"a": entry(shape=(2,))}, b"0000"),
    "offsets beyond the file": packed({"a": entry(offsets=(4, 8))}, b"0000"),
    "offsets backwards": packed({"a": entry(offsets=(4, 0))}, b"0000"),
    "overlapping tensors": packed({"a": entry(), "b": entry()}, b"0000"),
    "a hole between tensors": packed({"a": entry(), "b": entry(offsets=(8, 12))}, b"0" * 12),
    "bytes after the last tensor": packed({"a": entry()}, b"0000" + b"evil"),
    "a truncated tensor": packed({"a": entry()}, b"00"),
    "a name with a line break": packed({"a\nb": entry()}, b"0000"),
    "a name with an escape code": packed({"\x1b[2Ja": entry()}, b"0000"),
    "a name of 10 kB": packed({"a" * 10_000: entry()}, b"0000"),
    "metadata that is a list": packed({"__metadata__": ["a"]}),
    "metadata of numbers": packed({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_with_one_sentence(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (read_header, read_tensors):
        with pytest.raises(AdapterError, match=r"x\.safetensors") as caught:
            read(path)
        assert len(str(caught.value)) < 1000
        assert "\x1b" not in str(caught.value)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path, tmp_path / "absent", tmp_path / "a\0b"):
        with pytest.raises(AdapterError, match=r"no such file|not a regular file"):
            read_header(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"")
    os.truncate(path, untrusted.MAX_FILE_BYTES + 1)
    with pytest.raises(AdapterError, match="too large for an adapter"):
        read_header(path)


def test_a_million_tensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    header = {f"a{i}": entry(shape=(0,), offsets=(0, 0)) for i in range(untrusted.MAX_TENSORS + 1)}
    path.write_bytes(packed(header))
    with pytest.raises(AdapterError, match="too many tensors"):
        read_header(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(number, tmp_path):
    path = tmp_path / "x.safetensors"
    body = torch.tensor([number]).numpy().tobytes()
    path.write_bytes(packed({"a": entry()}, body))
    with pytest.raises(AdapterError, match="NaN or an infinity"):
        read_tensors(path)


@pytest.mark.parametrize(
    "handle", ["", "bear", "<>", "<a b>", "<../x>", "<a/b>", "<a\\b>", "<é>", "<a\n>", "<-a>"]
)
def test_a_handle_that_could_do_harm_is_refused(handle):
    with pytest.raises(AdapterError, match="an illegal handle"):
        adapter_files(made.adapter(tiny.pipeline(), "sd1", handles=(handle,)))


METADATA_MUTANTS = {
    "family": ["sd9", "", "__class__"],
    "concepts": ["", "{}", "[]", "[1]", '[{"handle": "<a>"}]', "[" * 10_000, "null"],
    "n_modules": ["-1", "x", "1e9", "9" * 5000],
    "ranks": ["[]", '{"unet.x": "y"}', "7"],
    "steps": ["[1]", "[1, 2, 3]", "1", '["a", "b"]'],
    "versions": ["[]", "x", '{"torch": "\\u001b[2J"}', '{"a\\nb": "1"}'],
    "prediction_type": ["", "sample", "epsilon\n# Free stuff"],
    "image_hashes": ["7", "x"],
    "resolution": ["", "∞"],
    "sizes": ["7", "[7]", "[[64]]", "[[64, 0]]", "[[64, 1e9]]", '[["64", "x"]]', "[[64, true]]"],
    "base_model": ["\x1b[2J", "a\x00"],
    "fingerprint": ["00"],
    "format": ["2", ""],
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_adapter(
        made.adapter(tiny.pipeline(), "sd1", kind="ranks"), tmp_path_factory.mktemp("scene")
    )


def rewritten(source, target, change):
    """Copy an adapter's files with `change(metadata)` applied to each."""
    for path in source.rglob("*.safetensors"):
        raw = path.read_bytes()
        n_header = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + n_header])
        change(header["__metadata__"])
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(packed(header, raw[8 + n_header :]))


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in METADATA_MUTANTS.items() for v in values]
)
def test_hostile_metadata_is_refused(field, value, scene, tmp_path):
    rewritten(scene, tmp_path, lambda metadata: metadata.update({f"lora_scene.{field}": value}))
    with pytest.raises(AdapterError):
        read_adapter(tmp_path)


def test_one_vast_rank_is_not_padded_onto_every_module(monkeypatch):
    monkeypatch.setattr(factors, "MAX_NUMBERS", 1000)
    small = {f"unet.{n}": LoraModule(torch.ones(1, 4), torch.ones(4, 1), 1.0) for n in range(10)}
    assert len(even_factors(small)) == 10
    vast = {"unet.x": LoraModule(torch.ones(20, 4), torch.ones(4, 20), 1.0)}
    with pytest.raises(AdapterError, match="ranks too far apart"):
        even_factors(small | vast)


def test_a_handle_that_is_a_path_reads_and_writes_nothing_outside(scene, tmp_path):
    def change(metadata):
        concepts = json.loads(metadata["lora_scene.concepts"])
        concepts[0]["handle"] = "<../../../etc/passwd>"
        metadata["lora_scene.concepts"] = json.dumps(concepts)

    rewritten(scene, tmp_path / "evil", change)
    with pytest.raises(AdapterError, match="an illegal handle"):
        read_adapter(tmp_path / "evil")
    out = tmp_path / "out"
    result = CliRunner().invoke(root, ["pull", str(tmp_path / "evil"), "--out", str(out)])
    assert isinstance(result.exception, AdapterError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil"]


def mutate(raw, rng):
    data = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        kind = rng.randrange(4)
        # most mutations hit the header, where the structure is
        end = len(data) if rng.random() < 0.3 else min(len(data), 4000)
        at = rng.randrange(max(end, 1))
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 20)))
        else:
            other = rng.randrange(max(end, 1))
            data[at : at + 16], data[other : other + 16] = (
                data[other : other + 16],
                data[at : at + 16],
            )
    return bytes(data)


def test_fuzzed_files_give_a_clear_error_or_a_sound_adapter(scene, tmp_path):
    rng = random.Random(20261122)
    save_adapter(read_adapter(scene), tmp_path)
    names = [LORA, "embeddings/bear.safetensors"]
    originals = {name: (tmp_path / name).read_bytes() for name in names}
    n_refused, slowest = 0, 0.0
    for _ in range(N_MUTANTS):
        name = rng.choice(names)
        (tmp_path / name).write_bytes(mutate(originals[name], rng))
        start = time.monotonic()
        try:
            inspect_path(tmp_path)
            adapter = read_adapter(tmp_path)
        except AdapterError:
            n_refused += 1
        else:
            assert adapter.handles == ("<bear>", "<bowl>")
        slowest = max(slowest, time.monotonic() - start)
        (tmp_path / name).write_bytes(originals[name])
    assert n_refused > 0.9 * N_MUTANTS
    assert slowest < 5.0

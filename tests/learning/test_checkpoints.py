from __future__ import annotations

import errno
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_scene.errors import CheckpointError, FileError
from lora_scene.learning import checkpoints
from lora_scene.learning.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from lora_scene.learning.leftovers import refuse_others
from lora_scene.learning.prior import draw_prior
from lora_scene.recipe import Prior
from lora_scene.size import Size
from tests import tiny
from tests.learning import made

STATE = {
    "parameters": [torch.ones(2, 3), torch.zeros(1, dtype=torch.bfloat16)],
    "optimizers": [
        {
            "state": {0: {"step": torch.tensor(3.0), "codes": torch.arange(9, dtype=torch.uint8)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "fused": None, "params": [0]}],
        }
    ],
    "scaler": None,
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_checkpoint_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "state.safetensors"
    save_checkpoint(Checkpoint("mark", 2, 7, STATE), path)
    found = load_checkpoint(path)
    assert (found.fingerprint, found.phase, found.step) == ("mark", 2, 7)
    assert same(found.state, STATE)
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_failed_write_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_checkpoint(Checkpoint("mark", 1, 1, STATE), path)

    def fail(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(FileError):
        save_checkpoint(Checkpoint("mark", 1, 2, STATE), path)
    assert load_checkpoint(path).step == 1
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("content", [b"", b"nonsense" * 20])
def test_damaged_file_is_refused_with_what_to_do(content, tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="--restart"):
        load_checkpoint(path)


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    save_file({"a": torch.ones(1)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        load_checkpoint(path)


@pytest.fixture
def backbone(scene):
    return made.bench(tiny.pipeline("sdxl"), scene, made.recipe("unused"), with_lora=False).backbone


SQUARE = {Size(16, 16): 1.0}


def prior(
    backbone, cache, *, nouns=("bear", "cat"), seed=0, trains_text=False, shares=SQUARE, **given
):
    return draw_prior(
        backbone,
        list(nouns),
        Prior(weight=1.0, n_steps=1, **{"n_images": 3, **given}),
        shares=shares,
        seed=seed,
        cache=cache,
        is_text_fixed=not trains_text,
    )


def test_prior_is_drawn_for_the_nouns_in_turn_and_read_from_its_cache(backbone, tmp_path):
    cache = tmp_path / "checkpoint" / "prior.safetensors"
    first = prior(backbone, cache)
    assert first.prompts == ("a photo of a bear", "a photo of a cat", "a photo of a bear in a room")
    assert [one.shape for one in first.latents] == [(4, 16, 16)] * 3
    written = cache.stat().st_mtime_ns
    second = prior(backbone, cache)
    assert torch.equal(torch.stack(first.latents), torch.stack(second.latents))
    assert cache.stat().st_mtime_ns == written
    assert not torch.equal(first.latents[0], first.latents[1])
    data = bytearray(cache.read_bytes())
    data[-1] ^= 1
    cache.write_bytes(data)
    third = prior(backbone, cache)
    assert torch.equal(torch.stack(first.latents), torch.stack(third.latents)), "drawn anew"


def test_every_size_of_prior_pictures_has_every_noun_and_prompt_in_turn(backbone, tmp_path):
    """One noun had one size, the other the other."""
    two = {Size(16, 16): 0.5, Size(24, 16): 0.5}
    for shares, n in ((two, 8), (SQUARE, 4)):
        found = prior(
            backbone, tmp_path / f"{n}", n_images=n, prompts=("a {}", "the {}"), shares=shares
        )
        pairs = zip((one.shape[-1] for one in found.latents), found.prompts, strict=True)
        said = ("a bear", "a cat", "the bear", "the cat")
        assert Counter(pairs) == {(size.width, one): 1 for size in shares for one in said}


def test_a_prior_s_prompt_may_have_two_places_for_the_noun(backbone, tmp_path):
    found = prior(backbone, tmp_path / "p.safetensors", prompts=("a {} on a {}",), n_images=2)
    assert found.prompts == ("a bear on a bear", "a cat on a cat")


@pytest.mark.parametrize("change", [{"n_images": 4}, {"nouns": ("dog",)}, {"seed": 5}])
def test_prior_of_other_settings_is_not_taken_from_the_cache(change, backbone, tmp_path):
    cache = tmp_path / "prior.safetensors"
    first = prior(backbone, cache)
    other = prior(backbone, cache, **change)
    assert len(other.latents) == len(other.prompts)
    same = zip(other.latents, first.latents, strict=False)
    assert len(other.latents) != len(first.latents) or not any(torch.equal(*two) for two in same)


@pytest.mark.parametrize("trains_text", [False, True])
def test_prior_prompts_are_encoded_anew_only_where_text_is_trained(trains_text, backbone, tmp_path):
    found = prior(backbone, tmp_path / "p.safetensors", trains_text=trains_text)
    assert (found.encodings is None) == trains_text
    noise = torch.Generator().manual_seed(0)
    batch = found.batch(backbone, 2, Size(16, 16), (np.random.default_rng(0), noise))
    chosen = np.random.default_rng(0).integers(3, size=2).tolist()
    with torch.no_grad():
        expected = backbone.encode_tokens(backbone.tokenize([found.prompts[i] for i in chosen]))
    torch.testing.assert_close(batch.text.states.detach(), expected.states)
    torch.testing.assert_close(batch.text.pooled.detach(), expected.pooled)
    assert torch.equal(batch.z, torch.stack([found.latents[i] for i in chosen]))
    assert batch.t.shape == (2,)


def test_what_a_header_nested_too_deeply_or_cut_holds_is_not_discarded_by_restart(tmp_path):
    path = tmp_path / "checkpoint" / "state.safetensors"
    path.parent.mkdir()
    for header in (b"[" * 200_000, b'{"__metadata__": {"for'):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError, match="move it away"):
            load_checkpoint(path)
        with pytest.raises(CheckpointError, match="move it away"):  # before the rest is deleted
            refuse_others(tmp_path, restart=True)


def test_checkpoint_follows_no_link_and_replaces_no_file_of_others(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir(), other.mkdir()
    (run / "checkpoint").symlink_to(other)
    checkpoint = Checkpoint("f", 1, 1, {"rows": torch.ones(1)})
    with pytest.raises(FileError, match="a symbolic link"):
        save_checkpoint(checkpoint, run / "checkpoint" / "state.safetensors")
    path = other / "state.safetensors"
    save_checkpoint(checkpoint, path)
    (other / "previous.safetensors").write_bytes(b"mine")
    before = path.read_bytes()
    with pytest.raises(FileError, match="did not write"):
        save_checkpoint(Checkpoint("f", 1, 2, {}), path)
    assert path.read_bytes() == before
    assert (other / "previous.safetensors").read_bytes() == b"mine"

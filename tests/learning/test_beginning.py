"""Runs that begin from an adapter, or from somebody's LoRA."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from lora_scene.adapters.adapter import product
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.diffusers import to_diffusers
from lora_scene.adapters.formats.kohya import kohya_name, to_kohya
from lora_scene.adapters.merging import merge_adapters
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.loading import load_pipeline
from lora_scene.errors import AdapterError, LoraSceneError, TrainingError
from lora_scene.learning.beginning import merge_beginning, put_rows, read_beginning
from lora_scene.learning.events import StepDone
from lora_scene.learning.handle_table import HandleTable
from lora_scene.scenes.handles import Concept
from tests import tiny
from tests.adapters import made as adapters
from tests.learning import made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Return a style's LoRA as kohya's scripts write it, text encoder too, and its modules."""
    modules = adapters.adapter(tiny.pipeline("sd1"), "sd1", text=True, strength=0.05).modules
    path = tmp_path_factory.mktemp("lora") / "style.v1.safetensors"
    save_file(to_kohya(modules, FAMILIES["sd1"]), path)
    return path, modules


def test_what_is_learnt_is_that_of_a_base_with_the_lora_in_it_and_is_delivered_with_it(
    stranger, bases, scene, tmp_path
):
    path, modules = stranger
    fused = load_pipeline(bases["sd1"])
    for key, module in modules.items():
        folded = module.folded()
        adapters.layer(fused, key).weight.data += 0.5 * product(folded.up, folded.down)
    fused.save_pretrained(tmp_path / "fused")
    out = tmp_path / "out"
    plain = made.run(scene, made.recipe(str(tmp_path / "fused"), steps=(1, 1)), tmp_path / "plain")
    settings, begin = made.recipe(bases["sd1"], steps=(1, 1)), read_beginning(path, 0.5)
    made.run(scene, settings, out, begin=begin)
    found = read_adapter(out)
    for ours, theirs in zip(found.concepts, plain.adapter.concepts, strict=True):
        assert torch.equal(ours.rows[0], theirs.rows[0])
    assert found.modules.keys() == modules.keys()
    for key, module in found.modules.items():
        expected = 0.5 * adapters.update(modules[key])
        if key in plain.adapter.modules:
            expected += adapters.update(plain.adapter.modules[key])
            learnt = plain.adapter.modules[key].rank
            assert torch.equal(module.down[-learnt:], plain.adapter.modules[key].down)
        assert torch.allclose(adapters.update(module), expected, atol=1e-6), key

    assert found.info.begun == f"style.v1.safetensors (sha256 {begin.digest[:12]}) at weight 0.5"
    assert found.info.base_hash != plain.adapter.info.base_hash, "the base is the untouched one"
    assert "begun from | style.v1.safetensors" in write_card(found, CardFacts("one"))
    assert "finished already" in _told(scene, settings, out, begin)
    with pytest.raises(TrainingError, match="another --from"):
        made.run(scene, settings, out, begin=read_beginning(path, 0.6))

    chained = dataclasses.replace(read_beginning(out), weight=0.25)
    assert chained.told.endswith(f"at weight 0.25, which began from {found.info.begun}")
    other = dataclasses.replace(found, info=dataclasses.replace(found.info, begun="x")).renamed(
        {handle: f"<other-{n}>" for n, handle in enumerate(found.handles)}
    )
    assert merge_adapters([found, other], [1, 1]).adapter.info.begun == f"{found.info.begun}; x"


def test_a_prior_is_never_that_of_another_beginning(stranger, bases, scene, tmp_path):
    """A try that a kill ended before its first checkpoint left its pictures of the merged base."""
    few = ("prior.weight=1", "prior.n_images=1", "prior.n_steps=1", "run.checkpoint_every=0")
    settings = made.recipe(bases["sd1"], *few, steps=(0, 1))

    def kill(event):
        if isinstance(event, StepDone):
            raise ZeroDivisionError

    begin = read_beginning(stranger[0], 20.0)
    with pytest.raises(ZeroDivisionError):
        made.run(scene, settings, tmp_path / "used", begin=begin, listener=kill)
    left = (tmp_path / "used" / "checkpoint" / "prior.safetensors").read_bytes()
    for name in ("used", "fresh"):
        made.run(scene, settings, tmp_path / name)
    used, fresh = (
        load_file(tmp_path / n / "checkpoint" / "prior.safetensors") for n in ("used", "fresh")
    )
    assert torch.equal(used["00000"], fresh["00000"])
    assert not torch.equal(load(left)["00000"], fresh["00000"]), "the test would test nothing"


def _told(scene, settings, out, begin):
    events = []
    made.run(scene, settings, out, begin=begin, listener=events.append)
    return " ".join(event.text for event in events if hasattr(event, "text"))


@pytest.mark.parametrize(("family", "layout"), [("sdxl", "kohya"), ("sd2", "diffusers")])
def test_a_lora_of_any_layout_is_merged_into_the_base_as_it_says(family, layout, tmp_path):
    pipe = tiny.pipeline(family)
    modules = adapters.adapter(pipe, family, text=True, kind="ranks", strength=0.05).modules
    kohya = layout == "kohya"
    tensors = to_kohya(modules, FAMILIES[family]) if kohya else to_diffusers(modules)
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "a.safetensors"
    )
    before = {key: adapters.layer(pipe, key).weight.detach().double() for key in modules}
    state = set(pipe.unet.state_dict())
    begun = merge_beginning(read_beginning(tmp_path, 2.0), Backbone(pipe, name="x"), "", print)
    assert set(pipe.unet.state_dict()) == state
    for key, module in modules.items():
        expected = 2 * adapters.update(module)
        change = adapters.layer(pipe, key).weight.detach().double() - before[key]
        assert torch.allclose(change, expected, atol=1e-5), key
        assert torch.allclose(adapters.update(begun.modules[key]), expected, atol=1e-5), key


def test_each_module_has_its_own_rank_and_alpha(tmp_path):
    pipe = tiny.pipeline("sd1")
    modules = adapters.adapter(pipe, "sd1", text=True, kind="ranks", strength=0.05).modules
    tensors, expected = {}, {}
    for n, (key, module) in enumerate(modules.items()):
        name = kohya_name(key, FAMILIES["sd1"])
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = (
            module.down,
            module.up,
        )
        own = (module.rank, module.rank / 2, None)[n % 3]
        tensors |= {} if own is None else {f"{name}.alpha": torch.tensor(float(own))}
        expected[key] = adapters.update(
            dataclasses.replace(module, alpha=float(own or module.rank))
        )
    assert len({module.rank for module in modules.values()}) > 1
    save_file(tensors, tmp_path / "a.safetensors")
    begun = merge_beginning(read_beginning(tmp_path), Backbone(pipe, name="x"), "", print)
    assert begun.modules.keys() == expected.keys()
    for key, update in expected.items():
        assert torch.allclose(adapters.update(begun.modules[key]), update, atol=1e-6), key


def test_handles_of_an_earlier_adapter_begin_at_its_rows_and_what_differs_is_told(tmp_path):
    pipe = tiny.pipeline("sd1")
    earlier = adapters.adapter(pipe, "sd1", handles=("<Bear>", "<cup>"))
    begun = read_beginning(save_adapter(earlier, tmp_path / "run"))
    backbone, told = Backbone(pipe, name="other"), []
    merge_beginning(begun, backbone, "another hash", told.append)
    concepts = [Concept("<shell>", "shell"), Concept("<bear>", "bear")]
    table = HandleTable(backbone, concepts, generator=torch.Generator())
    shell = table.rows_of(0)[0]
    put_rows(begun, table, told.append)
    assert torch.equal(table.rows_of(1)[0], earlier.concepts[0].rows[0])
    assert torch.equal(table.rows_of(0)[0], shell)
    words = " ".join(notice.text for notice in told)
    assert "trained on another base" in words
    assert "<bear> is a noun 0 in run and a bear here: it begins as the noun 0" in words
    assert "<cup> of run not in this scene: the rows are left out" in words
    double = HandleTable(backbone, concepts, n_vectors=2, generator=torch.Generator())
    with pytest.raises(AdapterError, match=r"handles\.n_vectors=1"):
        put_rows(begun, double, told.append)


def _empty(folder):
    folder.mkdir()
    return folder


def _file(path, tensors):
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda at: at / "nowhere", "no such folder"),
        (lambda at: _empty(at / "empty"), "neither an adapter's folder nor one with a single LoRA"),
        (lambda at: _file(at / "e.safetensors", {"emb_params": torch.ones(1, 8)}), "not a plain"),
        (
            lambda at: _file(
                at / "dora.safetensors",
                {
                    "unet.a.lora_A.weight": torch.ones(1, 2),
                    "unet.a.lora_B.weight": torch.ones(2, 1),
                    "unet.a.lora_magnitude_vector": torch.ones(2),
                },
            ),
            "unet.a.lora_magnitude_vector and 0 more",
        ),
        (
            lambda at: _file(
                at / "half.safetensors", {"lora_unet_a.lora_down.weight": torch.ones(1, 2)}
            ),
            "lora_unet_a.lora_down.weight: a factor without its partner",
        ),
        (
            lambda at: _file(
                at / "own.safetensors",
                {f"base_model.model.a.lora_{x}.weight": torch.ones(1, 1) for x in "AB"},
            ),
            "a file of PEFT's own",
        ),
        (
            lambda at: _file(
                at / "nan.safetensors",
                {"lora_unet_a.lora_down.weight": torch.full((1, 2), torch.nan)},
            ),
            "holds NaN",
        ),
    ],
)  # fmt: skip
def test_what_no_run_can_begin_from_is_refused_before_a_base_is_loaded(make, message, tmp_path):
    with pytest.raises(LoraSceneError, match=message):
        read_beginning(make(tmp_path))


def test_a_lora_that_does_not_fit_the_base_is_refused_and_the_base_is_as_it_was(stranger):
    path, _ = stranger
    pipe = tiny.pipeline("sdxl")
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    with pytest.raises(AdapterError, match=r"does not fit this base|has its place|another family"):
        merge_beginning(read_beginning(path), Backbone(pipe, name="x"), "", print)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(AdapterError, match="finite"):
        read_beginning(path, float("nan"))


def test_a_restart_deletes_nothing_that_it_begins_from(stranger, bases, scene):
    path, _ = stranger
    settings = made.recipe(bases["sd1"], steps=(1, 1))
    with pytest.raises(TrainingError, match="would delete what --from begins from"):
        made.run(scene, settings, path.parent, begin=read_beginning(path), restart=True)
    assert path.is_file()

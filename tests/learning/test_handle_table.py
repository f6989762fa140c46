from __future__ import annotations

import copy

import pytest
import torch

from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import SceneError
from lora_scene.learning import handle_table
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.ledger import Ledger
from lora_scene.scenes.scene import Concept
from tests import tiny
from tests.learning import made

BEAR, BOWL = Concept("<bear>", "bear"), Concept("<bowl>", "red bowl")


def table(family="sd1", concepts=(BEAR, BOWL), seed=0, **options):
    backbone = Backbone(tiny.pipeline(family), name="tiny", resolution=tiny.RESOLUTION)
    generator = torch.Generator().manual_seed(seed)
    return backbone, HandleTable(backbone, concepts, generator=generator, **options)


def load_rows(pipe, handles):
    """Load rows into a stock pipeline as diffusers does."""
    for index, concept in enumerate(handles.concepts):
        for rows, ending in zip(handles.rows_of(index), ("", "_2"), strict=False):
            pipe.load_textual_inversion(
                rows,
                token=concept.handle,
                text_encoder=getattr(pipe, f"text_encoder{ending}"),
                tokenizer=getattr(pipe, f"tokenizer{ending}"),
            )


@pytest.mark.parametrize("n_vectors", [1, 3])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_spliced_rows_read_as_in_a_stock_pipeline(family, n_vectors):
    prompt = "a photo of <bowl> and <bear> on grass"
    backbone, handles = table(family, n_vectors=n_vectors)
    with torch.no_grad():
        for rows in handles.tables:
            rows.add_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    stock = tiny.pipeline(family)
    load_rows(stock, handles)
    with handles.spliced(), torch.no_grad():
        ours = backbone.encode_tokens(backbone.tokenize([handles.expand(prompt)]))
    with torch.no_grad():
        theirs = stock.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    assert torch.equal(ours.states, theirs[0])
    if family == "sdxl":
        assert torch.equal(ours.pooled, theirs[2])
    assert handles.expand(prompt) == stock.maybe_convert_prompt(prompt, stock.tokenizer)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_splicing_leaves_no_trace_even_after_an_error(family):
    backbone, handles = table(family)
    before = [
        (len(t), copy.deepcopy(t.get_vocab()), e.get_input_embeddings(), e.config.vocab_size)
        for t, e in zip(backbone.tokenizers, backbone.text_encoders, strict=True)
    ]
    with handles.spliced():
        assert len(backbone.tokenizers[0]) == before[0][0] + 2
    with pytest.raises(RuntimeError, match="on purpose"), handles.spliced():
        raise RuntimeError("on purpose")
    for (n, vocabulary, lookup, size), t, e in zip(
        before, backbone.tokenizers, backbone.text_encoders, strict=True
    ):
        assert (len(t), t.get_vocab(), e.config.vocab_size) == (n, vocabulary, size)
        assert e.get_input_embeddings() is lookup


def test_known_tokens_are_looked_up_untouched():
    backbone, handles = table()
    plain = backbone.text_encoders[0].get_input_embeddings()
    ids = torch.arange(len(backbone.tokenizers[0]))
    with handles.spliced():
        spliced = backbone.text_encoders[0].get_input_embeddings()
        assert torch.equal(spliced(ids), plain(ids))
        new = spliced(torch.tensor([len(ids), len(ids) + 1]))
    assert torch.equal(new, handles.tables[0])


def test_gradient_reaches_only_the_rows_that_a_prompt_names():
    backbone, handles = table(n_vectors=2)
    with handles.spliced():
        ids = backbone.tokenize([handles.expand("a photo of <bowl>")])
        backbone.encode_tokens(ids).states.square().sum().backward()
    used = handles.tables[0].grad.abs().sum(dim=1) > 0
    assert used.tolist() == [False, False, True, True]


def test_noun_of_several_pieces_is_spread_over_several_vectors():
    backbone, handles = table(concepts=(BOWL,), n_vectors=3)
    tokenizer, matrix = backbone.tokenizers[0], backbone.text_encoders[0].get_input_embeddings()
    pieces = [matrix.weight[i] for i in tokenizer("red bowl", add_special_tokens=False).input_ids]
    expected = torch.stack([*pieces, (pieces[0] + pieces[1]) / 2])
    noise = (handles.tables[0] - expected).detach()
    deviation = matrix.weight.std(dim=0)
    assert (noise.abs() <= 0.05 * deviation).all()
    assert noise.abs().max() > 0, "equal vectors could never part"


def test_random_rows_have_the_vocabularys_mean_and_deviation():
    concepts = tuple(Concept(f"<c{i}>", "bear") for i in range(60))
    backbone, handles = table(concepts=concepts, init="random", n_vectors=16)
    matrix = backbone.text_encoders[0].get_input_embeddings().weight
    rows = handles.tables[0].detach()
    assert (rows.mean(dim=0) - matrix.mean(dim=0)).abs().max() < 0.2 * matrix.std()
    assert rows.std(dim=0).div(matrix.std(dim=0)).sub(1).abs().max() < 0.15
    again, other = (
        table(concepts=(BEAR,), init="random", seed=seed)[1].tables[0] for seed in (0, 1)
    )
    assert torch.equal(again, table(concepts=(BEAR,), init="random")[1].tables[0])
    assert not torch.equal(again, other)


def test_norms_are_brought_back_to_where_they_started():
    _, handles = table("sdxl")
    norms = [rows.norm(dim=1) for rows in handles.tables]
    directions = []
    with torch.no_grad():
        for rows in handles.tables:
            rows.mul_(3).add_(0.01)
            directions.append(rows / rows.norm(dim=1, keepdim=True))
    handles.restore_norms()
    for rows, norm, direction in zip(handles.tables, norms, directions, strict=True):
        torch.testing.assert_close(rows.norm(dim=1), norm)
        torch.testing.assert_close(rows / rows.norm(dim=1, keepdim=True), direction)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rows_that_begin_at_others_keep_the_norm_of_those(family):
    _, handles = table(family, n_vectors=2)
    longer = [5.0 * rows for rows in handles.rows_of(1)]
    expected = [5.0 * rows.norm(dim=-1) for rows in handles.rows_of(1)]
    others = [rows.norm(dim=-1) for rows in handles.rows_of(0)]
    handles.begin_at(1, longer)
    with torch.no_grad():
        for rows in handles.tables:
            rows.mul_(0.3).add_(0.01)
    handles.restore_norms()
    for index, norms in ((0, others), (1, expected)):
        for rows, norm in zip(handles.rows_of(index), norms, strict=True):
            torch.testing.assert_close(rows.norm(dim=-1), norm)


def test_columns_are_the_positions_of_each_handle_in_the_subsets_order():
    backbone, handles = table(n_vectors=2)
    prompt = handles.expand("a photo of <bear> and <bowl>")
    with handles.spliced():
        ids = backbone.tokenize([prompt])[0][0]
        tokens = backbone.tokenizers[0].convert_ids_to_tokens(ids)
        found = handles.columns(ids, (1, 0))
    assert [[tokens[i] for i in handle] for handle in found] == [
        ["<bowl>", "<bowl>_1"],
        ["<bear>", "<bear>_1"],
    ]


def test_handle_that_was_cut_off_is_named():
    backbone, handles = table()
    prompt = "a photo of " + "bear " * 30 + "<bowl>"
    with handles.spliced(), pytest.raises(SceneError, match=r"<bowl>.*too long"):
        handles.columns(backbone.tokenize([prompt])[0][0], (1,))


@pytest.mark.parametrize("handle", ["bear", "b", "cat"])
def test_token_of_the_base_is_refused_as_a_handle(handle):
    with pytest.raises(SceneError, match=f"{handle}: already a token of the base"):
        table(concepts=(Concept(handle, "bear"),))


def test_rows_stay_float32_on_a_half_precision_base(scene):
    pipe = tiny.pipeline("sd1").to(torch.bfloat16)
    bench = made.bench(pipe, scene, made.recipe("unused"), with_lora=False)
    with bench.table.spliced():
        ids = bench.backbone.tokenize(["a photo of <bear>"])
        states = bench.backbone.encode_tokens(ids).states
    assert bench.table.tables[0].dtype == torch.float32
    assert states.dtype == torch.bfloat16


def test_making_rows_never_holds_a_second_vocabulary(monkeypatch):
    monkeypatch.setattr(handle_table, "COLUMNS", 4)
    pipe = tiny.pipeline("sd1").to(torch.bfloat16)
    backbone = Backbone(pipe, name="tiny", resolution=tiny.RESOLUTION)
    with Ledger() as ledger:
        HandleTable(backbone, (BEAR,), generator=torch.Generator(), init="random")
    assert ledger.peak < 4 * backbone.text_encoders[0].get_input_embeddings().weight.numel()

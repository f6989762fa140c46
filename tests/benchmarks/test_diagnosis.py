"""Full fine-tuning taken apart: the arithmetic of its cuts, and the page of figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.diagnosis import tables
from benchmarks.quality_page import filled
from benchmarks.weight_change import CUTS, ENERGY, KINDS, WHOLE, take_apart, variants, what_is_kept
from lora_scene.workshop.results import known_rows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (12, 12),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2.weight": (12, 48),
    "unet.down_blocks.0.attentions.0.norm.weight": (12,),
    "unet.down_blocks.0.resnets.0.conv1.weight": (16, 12, 3, 3),
    "unet.time_embedding.linear_1.weight": (20, 12),
    "unet.conv_in.bias": (12,),
    "text_encoder.final_layer_norm.bias": (12,),
    "text_encoder.encoder.layers.0.mlp.fc1.weight": (24, 12),
}
OURS = {next(iter(SHAPES)), "unet.down_blocks.0.resnets.0.conv1.weight"}


@pytest.fixture(scope="module")
def layers():
    generator = torch.Generator().manual_seed(0)
    base, full = (
        {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(2)
    )
    changes = {name: full[name] - base[name] for name in SHAPES}
    made = take_apart(base, full, OURS)
    assert all(torch.equal(made[name].change, changes[name]) for name in SHAPES)
    return made


def test_every_kind_of_layer_is_told_by_its_name(layers) -> None:
    found = [layer.kind for layer in layers.values()]
    assert found == [
        "attention", "feed-forward", "norms and biases", "convolutions", "time layers",
        "norms and biases", "text encoder", "text encoder",
    ]  # fmt: skip


def test_a_cut_is_the_nearest_change_of_its_rank(layers) -> None:
    for layer in layers.values():
        matrix = layer.change.flatten(1).double().numpy() if layer.factors else None
        for rank in range(1, layer.rank + 1) if matrix is not None else ():
            spectrum = np.linalg.svd(matrix, compute_uv=False)
            missing = (layer.change - layer.cut(rank)).double().square().sum()
            assert float(missing) == pytest.approx((spectrum[rank:] ** 2).sum(), abs=1e-4)
        assert torch.equal(layer.cut(layer.rank), layer.change)
        assert not layer.cut(0).any()


def test_a_cut_by_energy_keeps_its_share_with_no_rank_to_spare(layers) -> None:
    for layer in layers.values():
        rank = layer.rank_of(0.9)
        wanted = 0.9 * layer.energy(layer.rank)
        assert layer.energy(rank) >= wanted - 1e-4
        assert rank == 1 or layer.energy(rank - 1) < wanted


def test_the_kinds_alone_sum_to_the_whole_and_each_complements_what_is_left(layers) -> None:
    ways = variants()
    for layer in layers.values():
        alone = [layer.cut(ways[f"{kind} alone"](layer)) for kind in KINDS]
        assert torch.equal(sum(alone), layer.change)
        for kind, own in zip(KINDS, alone, strict=True):
            assert torch.equal(own + layer.cut(ways[f"without {kind}"](layer)), layer.change)
        assert torch.equal(layer.cut(ways[WHOLE](layer)), layer.change)


def test_our_layers_cut_to_our_ranks_take_the_numbers_that_our_lora_has(layers) -> None:
    kept = what_is_kept([*layers.values()], variants()["our layers, cut to 8 and 2"])
    assert kept["attention"]["numbers"] == min(8 * (12 + 12), 12 * 12)
    assert kept["convolutions"]["numbers"] == 2 * (16 + 12 * 9)
    assert sum(own["numbers"] for own in kept.values()) == 144 + 248


def test_the_page_says_what_each_kind_of_layer_needs_and_how_cuts_differ(layers) -> None:
    ways = variants()
    rows = [
        {
            "method": name, "group": "development", "scene": scene, "n_parameters": 1000,
            "summary": {"exact_set": worth}, "kept": what_is_kept([*layers.values()], ways[name]),
        }
        for name, worth in ((WHOLE, 0.5), (ENERGY, 0.4), *((cut, 0.3) for cut in CUTS))
        for scene in ("a", "b")
    ]  # fmt: skip
    ours = {
        "method": "ours",
        "group": "development",
        "n_parameters": 10,
        "summary": {"exact_set": 0.6},
    }
    made = tables([*rows, {**ours, "scene": "a"}, {**ours, "scene": "b"}])
    assert "| full-ours: 1,000 numbers | 0.50 [0.50, 0.50] |" in made["means"]
    assert f"| {ENERGY} | −0.10 [−0.10, −0.10] |" in made["to_full_ours"]
    assert "| full-ours | −0.10 [−0.10, −0.10] |" in made["to_ours"]
    needed = layers[next(iter(SHAPES))].rank_of(0.9)
    [line] = [one for one in made["layers"].splitlines() if one.startswith("| attention |")]
    assert line.startswith("| attention | 144 |")
    assert line.endswith(f"| 1.00 | {needed} ({needed} to {needed}) of 12 |")


def test_the_page_s_tables_are_those_of_the_kept_rows() -> None:
    rows = known_rows(BENCHMARKS / "results" / "diagnosis.jsonl")
    page = (BENCHMARKS / "notes" / "diagnosis.md").read_text("utf-8")
    made = tables(list(rows.values()))
    assert all(f"<!-- table: {name} -->" in page for name in ("means", "layers"))
    assert filled(page, made) == page

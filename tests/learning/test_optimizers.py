from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lora_scene.learning.optimizers import (
    averaged,
    build_optimizers,
    clip_gradients,
    rate_factor,
    set_rate_factor,
    step_all,
)
from lora_scene.recipe import Optimizer, Phase


def move(optimizers, scaler=None, max_norm=0.0):
    norm = clip_gradients(optimizers, scaler=scaler, max_norm=max_norm)
    step_all(optimizers, scaler=scaler, is_finite=bool(torch.isfinite(norm)))


def parameters():
    return [nn.Parameter(torch.ones(4, 4))], [nn.Parameter(torch.ones(4, 4))]


def build(name="adamw", phase=Phase(trains="lora", weights_lr=0.1, rows_lr=0.2), said=None):  # noqa: B008  (frozen)
    rows, weights = parameters()
    notice = (said if said is not None else []).append
    made = build_optimizers(rows, weights, Optimizer(name=name), phase=phase, notice=notice)
    return rows[0], weights[0], made


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_rate_runs_from_one_to_its_end_fraction(schedule):
    phase = Phase(steps=11, schedule=schedule, end_fraction=0.2)
    factors = [rate_factor(phase, step) for step in range(11)]
    middle = {"constant": 1.0, "cosine": 0.6, "linear": 0.6}[schedule]
    assert factors[0] == pytest.approx(1)
    assert factors[5] == pytest.approx(middle)
    assert factors[-1] == pytest.approx(1.0 if schedule == "constant" else 0.2)
    assert factors == sorted(factors, reverse=True)
    if schedule == "cosine":
        expected = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.3))
        assert factors[3] == pytest.approx(expected)


def test_phase_of_one_step_has_its_first_rate():
    assert rate_factor(Phase(steps=1, schedule="cosine"), 0) == 1.0


def test_rate_factor_scales_the_first_rate_however_often():
    _, _, (rows, weights) = build()
    for factor in (0.5, 0.25, 0.5):
        set_rate_factor([rows, weights], factor)
        assert rows.param_groups[0]["lr"] == pytest.approx(0.2 * factor)
        assert weights.param_groups[0]["lr"] == pytest.approx(0.1 * factor)


def test_rate_of_zero_leaves_the_rows_out():
    rows, weights, made = build(phase=Phase(trains="lora", rows_lr=0, weights_lr=0.1))
    rows.grad, weights.grad = torch.ones(4, 4), torch.ones(4, 4)
    move(made, None, 0)
    assert torch.equal(rows, torch.ones(4, 4))
    assert not torch.equal(weights, torch.ones(4, 4))


def test_clipping_covers_rows_and_adapters_together():
    rows, weights, made = build()
    rows.grad, weights.grad = torch.full((4, 4), 3.0), torch.full((4, 4), 4.0)
    move(made, None, 1.0)
    together = torch.cat([rows.grad.flatten(), weights.grad.flatten()])
    assert together.norm().item() == pytest.approx(1, rel=1e-4)
    assert (weights.grad / rows.grad).mean().item() == pytest.approx(4 / 3)


def test_gradient_scaler_unscales_every_optimizer_once():
    """accelerate's wrapper would update it after each, and unscale the second twice."""
    moved = []
    for scale in (1.0, 1024.0):
        rows, weights, _ = build()
        optimizers = [torch.optim.SGD([rows], lr=1.0), torch.optim.SGD([weights], lr=1.0)]
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=True)
        loss = (rows * 0.01).sum() + (weights * 0.02).sum()
        scaler.scale(loss).backward()
        move(optimizers, scaler, 1000)
        moved.append((rows.detach().clone(), weights.detach().clone()))
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved[0][1], torch.full((4, 4), 0.98))


@pytest.mark.parametrize("max_norm", [0, 1.0])
def test_one_optimizer_s_overflow_moves_nothing_of_the_other_s(max_norm):
    rows, weights, _ = build()
    optimizers = [torch.optim.SGD([rows], lr=1.0), torch.optim.SGD([weights], lr=1.0)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((rows * float("inf")).sum() + weights.sum()).backward()
    move(optimizers, scaler, max_norm)
    assert torch.equal(rows, torch.ones(4, 4))
    assert torch.equal(weights, torch.ones(4, 4))
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize(
    "name",
    ["adamw8bit", "adamw", "pagedadamw8bit", "lion8bit", "adafactor", "prodigy", "schedulefree"],
)
def test_optimizer_lowers_a_loss_by_its_name(name):
    rate = 1.0 if name == "prodigy" else 0.1
    _, weights, made = build(name, Phase(trains="lora", weights_lr=rate))
    for _ in range(40):
        weights.square().sum().backward()
        move(made[1:], None, 0)
        made[1].zero_grad()
    assert weights.square().sum() < 15.9


def test_schedule_free_shows_its_average_and_takes_it_back():
    _, weights, made = build("schedulefree")
    for _ in range(3):
        weights.square().sum().backward()
        move(made[1:], None, 0)
        made[1].zero_grad()
    walked = weights.detach().clone()
    with averaged(made):
        assert not torch.equal(weights, walked)
    assert torch.equal(weights, walked), "looking at the average must not move the run"

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.mini_world import checkpoints
from benchmarks.mini_world.base import Denoiser, new_denoiser, objective
from benchmarks.mini_world.batches import Batches
from benchmarks.mini_world.checkpoints import load_state, save_state
from benchmarks.mini_world.compose import Sprites
from benchmarks.mini_world.judge import Lessons, new_judge
from benchmarks.mini_world.judge import objective as judge_objective
from benchmarks.mini_world.latents import encode_pool
from benchmarks.mini_world.loop import Loss, Plan, learning_rate, load_average, train
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.prefetch import Share
from benchmarks.mini_world.smudges import SMUDGE
from benchmarks.mini_world.tokens import build_tokenizer, world_words
from benchmarks.mini_world.vae import new_vae
from benchmarks.mini_world.vae import objective as vae_objective
from tests.benchmarks import made

TOKENIZER = build_tokenizer(world_words())

Made = tuple[nn.Module, Loss]


def made_vae() -> Made:
    vae = new_vae((4, 4, 4))
    return vae, vae_objective(vae, made.drawings(), Share(4), tile_share=0.5)


def made_judge() -> Made:
    sprites = Sprites(made.drawings(), noun_set("mini16"))
    sprites.add(SMUDGE, list(made.drawings().rgba[:2]))
    judge = new_judge(len(TOKENIZER), width=32, n_layers=1)
    return judge, judge_objective(judge, Lessons(sprites, TOKENIZER), Share(4))


def made_crops() -> Made:
    denoiser, batches = made_denoiser()
    return denoiser, objective(denoiser, batches, "crops", Share(2))


def made_scenes() -> Made:
    denoiser, batches = made_denoiser()
    return denoiser, objective(denoiser, batches, "scenes", Share(2))


def made_denoiser() -> tuple[Denoiser, Batches]:
    sprites = Sprites(made.drawings(), noun_set("mini16"))
    pool = encode_pool(new_vae((4, 4, 4)).eval(), sprites, 40, seed=0)
    return new_denoiser(len(TOKENIZER), (8, 16, 16)), Batches(pool, TOKENIZER)


class StoppedError(Exception):
    pass


def stopping(loss: Loss, at: int) -> Loss:
    def stopped(step: int, progress: float) -> Tensor:
        if step == at:
            raise StoppedError
        return loss(step, progress)

    return stopped


@pytest.mark.parametrize("make", [made_vae, made_judge, made_crops, made_scenes])
def test_a_resumed_run_ends_on_the_weights_of_an_uninterrupted_one(
    make: Callable[[], Made], tmp_path: Path
) -> None:
    def plan(name: str) -> Plan:
        return Plan(tmp_path / name, lr=1e-3, steps=5, warmup_steps=2, checkpoint_minutes=0)

    torch.manual_seed(0)
    whole, loss = make()
    assert train(whole, loss, plan("whole"))
    torch.manual_seed(0)
    first, loss = make()
    with pytest.raises(StoppedError):
        train(first, stopping(loss, 3), plan("parts"))
    torch.manual_seed(0)
    second, loss = make()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    assert train(second, loss, plan("parts"))
    for (name, a), b in zip(whole.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), f"{name}: {(a - b).abs().max()}"


def test_training_lowers_the_loss_and_leaves_the_averaged_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    inputs = torch.randn(64, 3)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])

    def loss(step: int, progress: float) -> Tensor:
        return (layer(inputs) - targets).square().mean()

    before = loss(0, 0.0).item()
    train(layer, loss, Plan(tmp_path / "c", lr=0.05, steps=200, warmup_steps=5))
    assert loss(0, 0.0).item() < 0.01 * before
    other = nn.Linear(3, 1)
    assert load_average(other, tmp_path / "c") == 200
    assert torch.equal(other.weight, layer.weight)


def test_the_rate_warms_up_stays_and_falls_to_zero(tmp_path: Path) -> None:
    plan = Plan(tmp_path, lr=2.0, warmup_steps=10, flat_share=0.5)
    assert learning_rate(plan, 0, 0.0) == pytest.approx(0.2)
    assert learning_rate(plan, 100, 0.5) == pytest.approx(2.0)
    assert learning_rate(plan, 100, 0.75) == pytest.approx(1.0)
    assert learning_rate(plan, 100, 1.0) == pytest.approx(0.0)


def test_a_run_may_leave_early_and_says_that_it_is_not_done(tmp_path: Path) -> None:
    layer = nn.Linear(1, 1)
    plan = Plan(tmp_path / "c", lr=0.1, steps=10**9, leave_minutes=0.0)
    assert not train(layer, lambda *_: layer(torch.ones(1)).sum(), plan)


def test_state_is_split_into_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_SHARD_BYTES", 100)
    tensors = {str(number): torch.full((16,), float(number)) for number in range(5)}
    save_state(tmp_path / "state", tensors, {"step": 3})
    assert len(list((tmp_path / "state").glob("*.safetensors"))) == 5
    loaded, facts = load_state(tmp_path / "state")
    assert facts == {"step": 3}
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)

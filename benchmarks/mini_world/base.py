"""Train the denoiser and its text encoder, first on crops, then on whole scenes.

    python -m benchmarks.mini_world.base --cache DIR --stage crops --minutes 12 --ranks 2
    python -m benchmarks.mini_world.base --cache DIR --stage scenes --minutes 70 --ranks 2
    python -m benchmarks.mini_world.base --cache DIR --stage mixed --from BASE --ranks 2

Crops of 32 px hold one drawing each: four times as many a second as scenes, they teach what
the nouns look like. Whole scenes then teach how things stand together. The model predicts
velocity and the noise schedule ends at zero signal, so that sampling starts from what
training saw; seven timesteps in ten are above 600 of 1000, where the layout is decided.
A mixed stage goes on from a base that is trained, in the wide world, on crops and scenes in turn;
its crops' timesteps are even, four in ten above 600.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.mini_world.averaging import Average
from benchmarks.mini_world.batches import Batch, Batches, Stage
from benchmarks.mini_world.binding import binding_loss, recorded_maps
from benchmarks.mini_world.latents import MASK_SIDE, load_pool
from benchmarks.mini_world.loop import Loss, Plan, add_run_options, launch, load_average, train
from benchmarks.mini_world.prefetch import Prefetched, Share
from benchmarks.mini_world.tokens import MAX_LENGTH, save_tokenizer, wide_words, world_words
from benchmarks.mini_world.vae import LATENT_CHANNELS

WIDTHS = (48, 96, 192)
TEXT_WIDTH = 128

_LAYOUT_STEP = 600
"""Above this timestep the layout is decided; half the draws go there on top of their share."""

_SEEN_STEP = 600
"""Below it a drawing's place is visible, and its cells count double."""

_BINDING_WEIGHT = 0.03

CROPS_A_SCENE = 3
"""Crops in a mixed stage's batch for each scene in the next: about as much work."""


class Denoiser(nn.Module):
    """The two networks that train together."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text = unet, text


def new_scheduler() -> DDIMScheduler:
    """Return the schedule of Stable Diffusion, rescaled to end at zero signal."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip


def words_of(stage: Stage) -> list[str]:
    """Return the words that a base of this stage knows."""
    return wide_words() if stage == "mixed" else world_words()


def new_denoiser(n_tokens: int, widths: tuple[int, ...] = WIDTHS) -> Denoiser:
    """Return untrained networks; the coarsest cross-attention level is 8 x 8."""
    text = CLIPTextConfig(
        vocab_size=n_tokens, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2, num_attention_heads=4, projection_dim=TEXT_WIDTH,
        max_position_embeddings=MAX_LENGTH, bos_token_id=n_tokens - 2,
        eos_token_id=n_tokens - 1, pad_token_id=n_tokens - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=MASK_SIDE, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=widths, layers_per_block=1, cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return Denoiser(unet, CLIPTextModel(text))


def diffusion_loss(
    denoiser: Denoiser,
    batch: Batch,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
    *,
    layout_share: float = 0.5,
) -> Tensor:
    """Return the weighted mean squared error of the velocity, plus the binding term; a scalar.

    v = alpha eps - sigma z_0 at z_t = alpha z_0 + sigma eps.
    """
    z_0 = batch.latents
    t = draw_timesteps(len(z_0), generator, layout_share).to(z_0.device)
    eps = torch.randn(z_0.shape, generator=generator).to(z_0.device)
    alpha = alphas_cumprod[t].sqrt()[:, None, None, None]
    sigma = (1 - alphas_cumprod[t]).sqrt()[:, None, None, None]
    z_t, v = alpha * z_0 + sigma * eps, alpha * eps - sigma * z_0
    states = denoiser.text(batch.tokens).last_hidden_state
    with recorded_maps(denoiser.unet) as maps:
        prediction = denoiser.unet(z_t, t, states).sample
    covered = batch.masks.sum(1, keepdim=True) * (t < _SEEN_STEP)[:, None, None, None]
    weights = 1 + covered
    error = (weights * (prediction - v).square()).mean() / weights.mean()
    binding = binding_loss(maps, batch.masks, batch.owners)
    loss: Tensor = error + _BINDING_WEIGHT * binding
    return loss


def draw_timesteps(n: int, generator: torch.Generator, layout_share: float = 0.5) -> Tensor:
    """Return n timesteps, (n,) in 0..999: a share from the layout's alone, the others from all."""
    start = _LAYOUT_STEP * (torch.rand(n, generator=generator) < layout_share)
    return (start + torch.rand(n, generator=generator) * (1000 - start)).long()


def objective(denoiser: Denoiser, batches: Batches, stage: Stage, share: Share) -> Loss:
    """Return the loss of a step of a stage."""
    device = denoiser.unet.device
    alphas_cumprod = new_scheduler().alphas_cumprod.to(device)
    seed = 5 if stage == "crops" else 6

    is_mixed = stage == "mixed"

    def draw(step: int, kind: Stage) -> Batch:
        n = share.batch * (CROPS_A_SCENE if is_mixed and kind == "crops" else 1)
        return batches.draw(kind, n, np.random.default_rng((seed, share.rank, step)))

    fetch = Prefetched(draw, share.n_workers)

    def loss(step: int, progress: float) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * seed + 2 * step + share.rank)
        kind: Stage = ("crops", "scenes")[step % 2] if is_mixed else stage
        batch = fetch(step, kind).to(device)
        layout = 0.0 if is_mixed and kind == "crops" else 0.5
        return diffusion_loss(denoiser, batch, alphas_cumprod, generator, layout_share=layout)

    return loss


def go_on_from(denoiser: Denoiser, tokenizer: CLIPTokenizer, base: Path) -> None:
    """Take over a base's weights, and its words' rows by the words; a new word keeps its own.

    Args:
        denoiser: Of the same widths; written to.
        tokenizer: Its words.
        base: A pipeline folder.
    """
    unet = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32)
    denoiser.unet.load_state_dict(unet.state_dict())
    text = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32)
    known = CLIPTokenizer.from_pretrained(base / "tokenizer").get_vocab()
    own, name = denoiser.text.state_dict(), "embeddings.token_embedding.weight"
    theirs = text.state_dict()
    key = next(key for key in own if key.endswith(name))
    rows = own[key].clone()
    for word, number in tokenizer.get_vocab().items():
        if word in known:
            rows[number] = theirs[key][known[word]]
    denoiser.text.load_state_dict({**theirs, key: rows})


def run(options: argparse.Namespace, rank: int, average: Average | None) -> None:
    """Train one rank's share of a stage; the result is the stage's checkpoint."""
    torch.manual_seed(0)
    cache = Path(options.cache)
    tokenizer = save_tokenizer(cache / f"tokenizer_{rank}", words_of(options.stage))
    denoiser = new_denoiser(len(tokenizer), tuple(options.widths))
    if options.stage == "scenes":
        step = load_average(denoiser, cache / "checkpoint_crops")
        print(f"starting from crops, step {step}", flush=True)
    if options.stage == "mixed":
        go_on_from(denoiser, tokenizer, options.from_base)
    denoiser = denoiser.to(options.device).train()
    batches = Batches(load_pool(cache), tokenizer)
    share = Share(options.batch, rank, options.workers)
    loss = objective(denoiser, batches, options.stage, share)
    plan = Plan(
        cache / f"checkpoint_{options.stage}", lr=options.lr, minutes=options.minutes,
        leave_minutes=options.leave_minutes, flat_share=0.6, ema_decay=options.ema_decay,
    )  # fmt: skip
    train(denoiser, loss, plan, rank=rank, average=average, resume=options.resume)


def add_widths_option(parser: argparse.ArgumentParser) -> None:
    """Add the denoiser's widths, the same in training and export."""
    parser.add_argument(
        "--widths", type=int, nargs=3, default=WIDTHS, help="channels at 16, 8 and 4 cells"
    )


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_options(parser)
    parser.add_argument("--stage", choices=("crops", "scenes", "mixed"), required=True)
    parser.add_argument(
        "--from", type=Path, dest="from_base", help="base that `mixed` goes on from"
    )
    add_widths_option(parser)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--ema-decay", type=float, default=0.998)
    options = parser.parse_args()
    if (options.stage == "mixed") != (options.from_base is not None):
        parser.error(
            "--from names the base that `--stage mixed` goes on from, and no other stage's"
        )
    launch(run, options)


if __name__ == "__main__":
    main()

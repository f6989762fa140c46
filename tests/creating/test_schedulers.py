from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from lora_scene.creating.schedulers import OWN, SAMPLERS, make_scheduler
from lora_scene.errors import CreationError
from tests.creating.studios import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)

ZERO_SNR = DDIMScheduler(
    prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
)


@pytest.mark.parametrize("name", [OWN, *SAMPLERS])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_bases_prediction_type_and_betas_are_kept(name, prediction_type):
    base = DDIMScheduler(
        beta_start=0.001, beta_end=0.02, num_train_timesteps=500, prediction_type=prediction_type
    )
    made = make_scheduler(base, name)
    assert made.config.prediction_type == prediction_type
    torch.testing.assert_close(made.betas, base.betas)


@pytest.mark.parametrize(
    "name", ["ddim", "ddpm", "dpm++", "dpm++-sde", "euler", "euler-a", "unipc"]
)
def test_zero_terminal_snr_is_kept_where_the_solver_can(name):
    made = make_scheduler(ZERO_SNR, name)
    assert made.config.rescale_betas_zero_snr
    made.set_timesteps(4)
    assert int(made.timesteps[0]) == 999


@pytest.mark.parametrize("name", ["pndm", "lms", "heun", "dpm++-karras"])
def test_a_solver_that_would_drop_zero_terminal_snr_is_refused(name):
    with pytest.raises(CreationError, match=r"(?s)zero-terminal SNR.*ddim, dpm\+\+, euler"):
        make_scheduler(ZERO_SNR, name)


def test_latents_are_not_clipped_where_the_base_leaves_it_unsaid():
    made = make_scheduler(EulerDiscreteScheduler(), "ddim")
    assert not made.config.clip_sample
    assert not made.config.set_alpha_to_one


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(CreationError, match=r"(?s)no such scheduler.*did you mean euler"):
        make_scheduler(ZERO_SNR, "eular")

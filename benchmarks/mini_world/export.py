"""Write the trained networks as a Stable Diffusion pipeline in half precision.

    python -m benchmarks.mini_world.export --cache DIR --out DIR

The folder loads with `StableDiffusionPipeline.from_pretrained`; `hashes.json` beside it
holds the SHA-256 of each file.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from benchmarks.mini_world.base import (
    Denoiser,
    add_widths_option,
    new_denoiser,
    new_scheduler,
)
from benchmarks.mini_world.loop import load_average
from benchmarks.mini_world.tokens import save_tokenizer

HASHES = "hashes.json"
_UNHASHED = (HASHES, "README.md")


def build_pipeline(
    denoiser: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """Put the parts together, without safety checker."""
    return StableDiffusionPipeline(
        vae=vae, text_encoder=denoiser.text, tokenizer=tokenizer, unet=denoiser.unet,
        scheduler=new_scheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under a folder, the hashes' own and the card aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in _UNHASHED and "__pycache__" not in path.parts
    }


def write_hashes(folder: Path) -> None:
    """Write `hashes.json` into a folder."""
    (folder / HASHES).write_text(json.dumps(hash_files(folder), indent=1) + "\n")


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of working data")
    parser.add_argument("--stage", choices=("crops", "scenes"), default="scenes")
    add_widths_option(parser)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = save_tokenizer(options.out / "tokenizer")
    denoiser = new_denoiser(len(tokenizer), tuple(options.widths))
    step = load_average(denoiser, options.cache / f"checkpoint_{options.stage}")
    vae = AutoencoderKL.from_pretrained(options.cache / "vae_folded")
    pipeline = build_pipeline(denoiser, vae, tokenizer).to(torch.float16)
    pipeline.save_pretrained(options.out)
    write_hashes(options.out)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {options.stage} at step {step}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

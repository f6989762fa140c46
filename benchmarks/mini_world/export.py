"""Write the trained networks as they are shipped.

    python -m benchmarks.mini_world.export --cache DIR --base DIR --judge DIR

The base is a Stable Diffusion pipeline that loads with `StableDiffusionPipeline.from_pretrained`;
its denoiser and autoencoder are in half precision, its text encoder in full, since transformers
loads a model in the precision it was saved in and diffusers does not. The judge is a `CLIPModel`
folder. Both are taken from the averaged weights of the last checkpoints, finished or not.
`hashes.json` in each folder holds the SHA-256 of every file.
"""

import argparse
import hashlib
import json
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from benchmarks.mini_world.base import (
    Denoiser,
    add_widths_option,
    new_denoiser,
    new_scheduler,
    words_of,
)
from benchmarks.mini_world.batches import Stage
from benchmarks.mini_world.judge import new_judge, save_judge
from benchmarks.mini_world.loop import load_average
from benchmarks.mini_world.tokens import build_tokenizer, world_words

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


def export_base(cache: Path, stage: Stage, widths: tuple[int, ...], out: Path) -> int:
    """Write the pipeline and its hashes; return the step that it is from."""
    tokenizer = build_tokenizer(words_of(stage))
    denoiser = new_denoiser(len(tokenizer), widths)
    step = load_average(denoiser, cache / f"checkpoint_{stage}")
    vae = AutoencoderKL.from_pretrained(cache / "vae_folded")
    denoiser.unet.half()
    vae.half()
    build_pipeline(denoiser, vae, tokenizer).save_pretrained(out)
    forget_origin(out / "vae" / "config.json")
    write_hashes(out)
    return step


def export_judge(cache: Path, out: Path) -> int:
    """Write the judge and its hashes; return the step that it is from."""
    tokenizer = build_tokenizer(world_words())
    judge = new_judge(len(tokenizer))
    step = load_average(judge, cache / "checkpoint_judge")
    save_judge(judge, tokenizer, out)
    write_hashes(out)
    return step


def forget_origin(config: Path) -> None:
    """Drop the path that a model was loaded from: it is nobody else's business."""
    kept = {key: value for key, value in json.loads(config.read_text()).items()
            if key != "_name_or_path"}  # fmt: skip
    config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


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


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of working data")
    parser.add_argument("--stage", choices=("crops", "scenes", "mixed"), default="scenes")
    parser.add_argument("--base", type=Path, help="folder for the pipeline")
    parser.add_argument("--judge", type=Path, help="folder for the judge")
    add_widths_option(parser)
    options = parser.parse_args()
    if options.base:
        step = export_base(options.cache, options.stage, tuple(options.widths), options.base)
        print(f"{options.base}: {options.stage}, step {step}, {_megabytes(options.base):.1f} MB")
    if options.judge:
        step = export_judge(options.cache, options.judge)
        print(f"{options.judge}: step {step}, {_megabytes(options.judge):.1f} MB")


if __name__ == "__main__":
    main()

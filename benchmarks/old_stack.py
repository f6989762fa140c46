"""Whether exported adapters load into an older diffusers, bit for bit where it can be.

Needs a second environment, for example

    python -m venv /somewhere/old
    /somewhere/old/bin/pip install torch==2.13.0 diffusers==0.35.2 transformers==4.57.6 \
        peft==0.18.0 accelerate

and runs from the repository's root:

    python -m benchmarks.old_stack /somewhere/old/bin/python

Tiny random pipelines of the three families are saved and drawn here, with the adapter loaded by
this package; the older stack then loads the exported files with its own loaders and draws again.
`naive` is the same adapter written as it was trained, neither folded nor padded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

CASES = (
    ("sd1", "lora", True, 1),
    ("sd1", "ranks", True, 2),
    ("sd2", "conv", True, 1),
    ("sdxl", "ranks", True, 2),
    ("sdxl", "lora", False, 1),
)
PROMPT = "a photo of <bear> and <bowl>"
TOKENS = {"<bear>": "scene_bear", "<bowl>": "scene_bowl"}


def main() -> None:
    """Write with this interpreter, read with the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old_python")
    old_python = parser.parse_args().old_python
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        print(versions())
        read(Path(folder))
        subprocess.run([old_python, __file__, "--read", folder], check=True)


def write(root: Path) -> None:
    """Save bases, exported adapters, and what they draw."""
    from lora_scene import load_adapter
    from lora_scene.adapters.exports import export_adapter
    from lora_scene.adapters.formats.diffusers import infix_of
    from lora_scene.adapters.formats.modelspec import Title
    from lora_scene.adapters.whole_pipeline import add_older_layout, export_pipeline
    from lora_scene.adapters.writing import write_tensors
    from tests import tiny
    from tests.adapters import made

    for family, kind, text, n_vectors in CASES:
        case = root / f"{family}-{kind}"
        pipeline = tiny.pipeline(family)
        pipeline.save_pretrained(case / "base")
        add_older_layout(case / "base")
        adapter = made.adapter(pipeline, family, kind=kind, text=text, n_vectors=n_vectors)
        export_adapter(adapter, case / "out", title=Title("scene"), dtype="fp32")
        export_pipeline(adapter, tiny.pipeline(family), case / "merged", dtype="fp32")
        naive = {
            f"{key}{infix_of(key)}.{side}.weight": value
            for key, module in adapter.modules.items()
            for side, value in (("down", module.down), ("up", module.up))
        }
        write_tensors(case / "naive.safetensors", naive, {})
        base = draw(pipeline, "a photo of bear and bowl")
        load_adapter(pipeline, adapter, name="scene")
        torch.save({"base": base, "drawn": draw(pipeline, PROMPT)}, case / "expected.pt")


def read(root: Path) -> None:
    """Load the files with diffusers alone, draw, and print the largest differences."""
    for family, kind, _, _ in CASES:
        case = root / f"{family}-{kind}"
        expected = torch.load(case / "expected.pt", weights_only=True)
        plain = draw(open_base(case), "a photo of bear and bowl")
        cells = [f"base {gap(plain, expected['base'])}"]
        files = {
            "diffusers": case / "out" / "pytorch_lora_weights.safetensors",
            "kohya": case / "out" / "scene.safetensors",
            "naive": case / "naive.safetensors",
        }
        for name, path in files.items():
            if not path.exists():
                continue
            pipeline = open_base(case)
            load_rows(pipeline, case / "out" / "embeddings")
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="x")
            n_layers = sum(
                "x" in getattr(module, "lora_A", {})
                for part in ("unet", "text_encoder", "text_encoder_2")
                for module in (getattr(pipeline, part, None) or torch.nn.Module()).modules()
            )
            drawn = draw(pipeline, PROMPT)
            cells.append(f"{name} {n_layers} modules {gap(drawn, expected['drawn'])}")
        merged = draw(open_base(case, "merged"), PROMPT)
        cells.append(f"merged pipeline {gap(merged, expected['drawn'])}")
        print(f"  {family:4} {kind:6} {', '.join(cells)}")


def open_base(case: Path, name: str = "base") -> object:
    """Load a saved pipeline."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(str(case / name))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_rows(pipeline: object, folder: Path) -> None:
    """Load the embedding files with diffusers' own loader."""
    from safetensors.torch import load_file

    for token, stem in TOKENS.items():
        path = folder / f"{stem}.safetensors"
        rows = load_file(str(path))
        if "clip_l" not in rows:
            pipeline.load_textual_inversion(str(path), token=token)
            continue
        for key, end in (("clip_l", ""), ("clip_g", "_2")):
            pipeline.load_textual_inversion(
                rows[key],
                token=token,
                text_encoder=getattr(pipeline, f"text_encoder{end}"),
                tokenizer=getattr(pipeline, f"tokenizer{end}"),
            )


def draw(pipeline: object, prompt: str) -> torch.Tensor:
    """Draw two steps; latents (1, 4, 16, 16)."""
    return pipeline(
        prompt,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(0),
    ).images.float()


def gap(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Return the largest difference, or that there is none."""
    worst = (found - wanted).abs().max().item()
    return "bit-equal" if worst == 0 else f"off by {worst:.1e}"


def versions() -> str:
    """Name the stack."""
    import diffusers
    import peft
    import transformers

    return (
        f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1:2] == ["--read"]:
        print(versions())
        read(Path(sys.argv[2]))
    else:
        main()

"""A whole pipeline with an adapter merged into its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.attachment import load_adapter
from lora_scene.adapters.whole_model import needs_whole_model
from lora_scene.adapters.writing import write_tensors
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import DTYPES
from lora_scene.backbones.sources import other_base
from lora_scene.errors import AdapterError
from lora_scene.file_groups import written_together
from lora_scene.files import check_target, write_json
from lora_scene.ownership import LISTING, list_folder


def export_pipeline(adapter: Adapter, pipeline: Any, out: Path, *, dtype: str = "fp16") -> Path:
    """Write a whole pipeline with the adapter merged into its weights and its handles known.

    Args:
        adapter: The adapter.
        pipeline: Its base in float32; the adapter stays in it.
        out: The folder, which must be new or empty.
        dtype: `fp32`, `fp16` or `bf16`.

    Raises:
        AdapterError: The folder is not empty, or the adapter does not fit the pipeline.
    """
    check_new(out)
    # Stock pipelines, which will read it, expand no handle that has capitals.
    adapter = adapter.renamed({handle: handle.lower() for handle in adapter.handles})
    load_adapter(pipeline, adapter, name="merged")
    if adapter.modules:
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    with written_together(out) as aside:
        pipeline.to(DTYPES[dtype]).save_pretrained(aside)
        add_older_layout(aside)
        write_json(aside / LISTING, list_folder(aside))
    return out


def strange_base(adapter: Adapter, pipeline: Any, *, name: str) -> str | None:
    """Say how a pipeline's base differs from the one that an adapter was trained on, or None.

    Args:
        adapter: The adapter; of a run that trained a whole model, that model is its base.
        pipeline: Before anything is merged into it.
        name: What to call its base.
    """
    if needs_whole_model(adapter):
        return None
    here = (name, Backbone(pipeline, name=name).content_hash())
    info = adapter.info
    return other_base((info.base_model, info.base_hash), here, is_rounded=False)


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        AdapterError: It does.
        FileError: It cannot be written.
    """
    if any(check_target(out, []).glob("*")):
        raise AdapterError("the folder is not empty", where=out, hint="name a new one")


def add_older_layout(folder: Path) -> None:
    """Make a pipeline that transformers 5 saved readable by transformers 4 as well.

    transformers 5.6 and later leave `text_model.` out of a text encoder's keys, and save one
    tokenizer file; version 4 then starts the text encoder at random, and finds no tokenizer.

    Args:
        folder: A pipeline that `save_pretrained` wrote.
    """
    for path in folder.glob("text_encoder*/model.safetensors"):
        tensors = load(path.read_bytes())  # not mapped: Windows replaces no file that is
        if any(key.startswith("text_model.") for key in tensors):
            continue
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        dtype = next(iter(tensors.values())).dtype
        named = {f"text_model.{key}": tensor for key, tensor in tensors.items()}
        aside = path.with_suffix(".writing")
        write_tensors(aside, named, metadata, dtype)
        aside.replace(path)
    for path in folder.glob("tokenizer*/tokenizer.json"):
        model = json.loads(path.read_text("utf-8"))["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
        (path.parent / "vocab.json").write_text(vocabulary, encoding="utf-8")
        text = "\n".join(["#version: 0.2", *merges, ""])
        (path.parent / "merges.txt").write_text(text, encoding="utf-8")


def refuse_checkpoint() -> None:
    """Say why there is no merged single-file checkpoint.

    Raises:
        AdapterError: Always.
    """
    raise AdapterError(
        "a merged single-file checkpoint cannot be written: the installed diffusers reads that"
        " layout but has no writer for it",
        hint="export a pipeline, or give interfaces the kohya file and the embeddings",
    )

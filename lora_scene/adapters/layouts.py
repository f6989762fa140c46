"""The layouts and number formats that exports have, by name; no torch."""

from __future__ import annotations

from typing import Literal, get_args

Layout = Literal["diffusers", "kohya", "bundle", "embeddings"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
DTYPE_NAMES = ("fp32", "fp16", "bf16")

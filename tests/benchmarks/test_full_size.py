"""The rehearsal's tokenizer; full-size bases are built by the rehearsal alone."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.full_size import N_TOKENS, clip_tokenizer

needs_merges = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip_torch has CLIP's merges"
)


@needs_merges
def test_the_tokenizer_is_clips():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == N_TOKENS
    published = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat", in CLIP's own ids
    assert tokenizer("a photo of a cat").input_ids == published

"""Union sampling: which concepts a training step shows, and the prompt that names them.

Break-A-Scene (arXiv:2305.16311), section 3.2: k is uniform in 1..K, then k of the K concepts are
drawn without replacement, in random order. A given subset of size k has the probability
1 / (K C(K, k)): subsets are not equally likely, sizes are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_scene.recipe.templates import fill

PROMPT_TEMPLATE = "a photo of {}"


def draw_subset(n_concepts: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Draw 1..K of K concepts by union sampling, in random order."""
    size = int(generator.integers(1, n_concepts + 1))
    return tuple(int(k) for k in generator.permutation(n_concepts)[:size])


def draw_single(n_concepts: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Draw one concept, each equally likely."""
    return (int(generator.integers(n_concepts)),)


def prompt_for(
    handles: Sequence[str],
    nouns: Sequence[str] | None = None,
    template: str = PROMPT_TEMPLATE,
) -> str:
    """Name the handles in a prompt: `a photo of <a> and <b>`.

    Args:
        handles: The drawn handles, in the drawn order.
        nouns: Their class nouns, to follow them: `a photo of <a> bear and <b> shell`.
        template: The prompt, with {} for the list of handles.
    """
    names = (
        handles if nouns is None else [" ".join(pair) for pair in zip(handles, nouns, strict=True)]
    )
    return fill(template, " and ".join(names))

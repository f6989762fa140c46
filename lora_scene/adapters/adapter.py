"""An adapter in memory: what training learnt, apart from any file layout.

Adapter
├── concepts   the handles: class nouns and embedding rows
├── modules    the LoRA factors, one pair a module of the base
└── info       where it comes from: base, recipe, seed, versions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from lora_scene.errors import AdapterError, did_you_mean
from lora_scene.scenes.handles import Concept, check_handles, handle_stem
from lora_scene.size import Size


@dataclass(frozen=True)
class LearnedConcept(Concept):
    """One thing learnt.

    Attributes:
        rows: Its embedding rows, one (n_vectors, d_i) tensor a text encoder i.
        stem: Name of its embedding file without suffix; by default `bear` for `<bear>`.
    """

    rows: tuple[torch.Tensor, ...] = ()
    stem: str = ""

    def __post_init__(self) -> None:
        """Name the file after the handle where nothing else is said."""
        object.__setattr__(self, "stem", self.stem or handle_stem(self.handle))

    @property
    def n_vectors(self) -> int:
        """Return how many rows stand for the handle in each text encoder."""
        return self.rows[0].shape[0]


@dataclass(frozen=True)
class LoraModule:
    """The factors of one adapted layer: W' = W + scale * up @ down.

    A convolution's kernel counts as (n_out, n_in * k * k); its factors keep the shapes of the two
    convolutions that do the same one after the other (LoCon, arXiv:2309.14859).

    LoRA (arXiv:2106.09685) scales by alpha / r.

    Attributes:
        down: (r, n_in), or (r, n_in, k, k) of a convolution; PEFT's `lora_A`.
        up: (n_out, r), or (n_out, r, 1, 1) of a convolution; PEFT's `lora_B`.
        alpha: LoRA's alpha.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Return r."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """Return the factor of up @ down."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the adapted weight's shape: (n_out, n_in), or (n_out, n_in, k, k)."""
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def update(self) -> torch.Tensor:
        """Return W' - W, in the weight's shape."""
        return self.scale * product(self.up, self.down).view(self.shape)

    def folded(self) -> LoraModule:
        """Return the same update with its scale inside `up`: alpha = r, the scale is 1."""
        if self.scale == 1.0:
            return self
        return LoraModule(self.down, self.up * self.scale, float(self.rank))


def product(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Return up @ down, (n_out, n_in) or (n_out, n_in * k * k), from factors of either kind."""
    return up.flatten(1) @ down.flatten(1)


@dataclass(frozen=True)
class TrainingInfo:
    """Where an adapter comes from; it travels in every file's metadata.

    Attributes:
        base_model: Hub id, folder name or file name of the base.
        base_hash: `Backbone.content_hash`; of the UNet alone in files of earlier versions.
        prediction_type: `epsilon` or `v_prediction`.
        resolution: Training size: the side of the square of that area, pixels.
        recipe_name: The recipe's name.
        recipe_toml: The resolved recipe, as TOML.
        seed: The run's seed.
        steps: Optimizer steps of each phase.
        versions: Package name to version.
        image_hashes: sha256 of each training photo's pixels, hexadecimal.
        sizes: At which each photo was learnt, pixels; none where all were such squares.
        begun: What the run began from, whose update is part of this adapter.
        taken: Of a snapshot that was made the run's adapter: which, and the weight folded in.
    """

    base_model: str
    base_hash: str
    prediction_type: str
    resolution: int
    recipe_name: str
    recipe_toml: str
    seed: int
    steps: tuple[int, int]
    versions: Mapping[str, str] = field(default_factory=dict)
    image_hashes: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    begun: str = ""
    taken: str = ""

    @property
    def merged(self) -> tuple[str, ...]:
        """Return what each adapter was that this one was merged of; empty for one that was not.

        Seed and steps are the first one's then. A merge has such lines in the place of a recipe,
        which has no comments.
        """
        lines = self.recipe_toml.splitlines()
        return tuple(line.removeprefix("# ") for line in lines if line.startswith("# weight "))

    @property
    def first_size(self) -> Size:
        """Return the size at which the first photo was learnt, pixels."""
        return (*self.sizes, Size(self.resolution, self.resolution))[0]

    @property
    def told_sizes(self) -> str:
        """Return the sizes for people, such as `512 px` or `576x384, 384x704 px`."""
        return f"{', '.join(map(str, dict.fromkeys(self.sizes))) or self.resolution} px"


@dataclass(frozen=True)
class Adapter:
    """Handles and LoRA factors of one scene.

    Attributes:
        family: Key of `lora_scene.backbones.families.FAMILIES`: `sd1`, `sd2` or `sdxl`.
        concepts: The handles, in the scene's order.
        modules: LoRA factors by `<part>.<module path>`, the part being `unet`, `text_encoder` or
            `text_encoder_2`, the path as `named_modules()` of the stock model gives it, with
            `text_model.` at the head of a text encoder's paths, whatever the installed
            transformers calls them. Empty when only rows were learnt.
        info: Where it comes from.
    """

    family: str
    concepts: tuple[LearnedConcept, ...]
    modules: Mapping[str, LoraModule]
    info: TrainingInfo

    @property
    def handles(self) -> tuple[str, ...]:
        """Return the handles, in the scene's order."""
        return tuple(concept.handle for concept in self.concepts)

    def renamed(self, rename: Mapping[str, str]) -> Adapter:
        """Return the same adapter with other handles.

        Args:
            rename: Old handle to new; handles that are not named stay.

        Raises:
            AdapterError: It lacks an old handle, a new one is none, or two would be the same.
        """
        for handle in rename:
            if handle not in self.handles:
                raise AdapterError(
                    "no such handle to rename",
                    where=handle,
                    expected=", ".join(self.handles),
                    hint=did_you_mean(handle, self.handles),
                )
        concepts = tuple(
            replace(c, handle=rename[c.handle], stem="") if c.handle in rename else c
            for c in self.concepts
        )
        problems = check_handles([c.handle for c in concepts], "rename", error=AdapterError)
        if problems:
            raise AdapterError.collect(problems, "handles cannot be renamed so")
        return replace(self, concepts=concepts)

    def folded(self) -> Adapter:
        """Return the same adapter with every module's scale inside its `up`."""
        modules = {key: module.folded() for key, module in self.modules.items()}
        return replace(self, modules=modules)

    def cast(self, dtype: torch.dtype) -> Adapter:
        """Return the folded adapter with every number rounded to `dtype`, kept as float32."""

        def rounded(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(dtype).float()

        modules = {
            key: LoraModule(rounded(module.down), rounded(module.up), module.alpha)
            for key, module in self.folded().modules.items()
        }
        concepts = tuple(
            replace(concept, rows=tuple(rounded(rows) for rows in concept.rows))
            for concept in self.concepts
        )
        return replace(self, concepts=concepts, modules=modules)

    @property
    def n_parameters(self) -> int:
        """Return how many numbers were learnt."""
        rows = sum(row.numel() for concept in self.concepts for row in concept.rows)
        factors = sum(module.down.numel() + module.up.numel() for module in self.modules.values())
        return rows + factors

"""What our LoRA lacks beside training everything: that taken apart, and the curve of our ranks.

    python -m benchmarks.diagnosis OUT [--part 1/2]         # goes on where it was killed
    python -m benchmarks.diagnosis --table OUT/results.jsonl [--page FILE]

Each development scene is learnt once by `full-ours`. Then every layer of its weight change is cut
to a low rank by SVD, or kinds of layers are left out; what is left is put onto the base, and the
protocol's pictures are drawn and judged. The handles' rows are always there. The protocol's other
methods, ours at four ranks, are run beside it. Rows and pictures lie in OUT as a benchmark's do.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.quality_page import SHORT, against, filled, markdown, rounded
from benchmarks.records import circumstances
from benchmarks.weight_change import (
    CUTS,
    ENERGY,
    KINDS,
    WHOLE,
    take_apart,
    variants,
    what_is_kept,
)
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.learning.lora import residual_convolutions, unet_targets
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.fingerprints import fingerprint_of
from lora_scene.workshop.methods import open_method, recipes_of, train_method
from lora_scene.workshop.protocol import Attempt, read_protocol
from lora_scene.workshop.results import finished_row, folder_of, keep_row, known_rows
from lora_scene.workshop.statistics import Row, method_interval, methods_of
from lora_scene.workshop.trials import Bench, measure_run, open_bench, run_benchmark

PROTOCOL = Path(__file__).parent / "protocols" / "diagnosis.toml"
OURS = "ours"


def measure_variants(bench: Bench, run: Attempt, *, scene: Scene, names: Sequence[str]) -> None:
    """Learn a scene in full; draw and judge with the named variants that are not measured yet."""
    learnt = fingerprint_of(bench.protocol, run, scene=scene)
    left = dict(_unmeasured(bench, run, names=names, learnt=learnt))
    if not left:
        return
    bench.tell(f"{run.key}: {len(left)} variants")
    recipes = recipes_of(bench.protocol, run, scene=scene)
    trained = train_method(recipes, folder_of(bench.out, run), device=bench.device)
    studio = open_studio(trained.folders, base=bench.protocol.base, device=bench.device)
    weights = weights_of(studio)
    base = {name: weight.clone() for name, weight in weights.items()}
    unet = studio.backbone.unet
    ours = (*unet_targets(unet, recipes[0][0].lora), *residual_convolutions(unet))
    full = weights_of(open_method(bench.protocol, trained, device=bench.device))
    layers = take_apart(base, full, {f"unet.{name}.weight" for name in ours})
    for name, (one, made_of) in left.items():
        rank_of = variants()[name]
        for weight_name, layer in layers.items():
            weights[weight_name].copy_(base[weight_name] + layer.cut(rank_of(layer)))
        kept = what_is_kept([*layers.values()], rank_of)
        counted = replace(trained, n_parameters=sum(own["numbers"] for own in kept.values()))
        begun = time.process_time()
        row = measure_run(bench, one, studio, trained=counted, scene=scene, made_of=made_of)
        more = {"kept": kept, "cpu_seconds": round(time.process_time() - begun, 2)}
        commit = circumstances(bench.device)["commit"]
        keep_row({**row, **more, "commit": commit}, folder_of(bench.out, one))


def weights_of(studio: Studio) -> dict[str, Tensor]:
    """Return the weights that full fine-tuning trains, by part and name."""
    backbone = studio.backbone
    parts = zip(
        ("unet", *backbone.family.text_encoders),
        (backbone.unet, *backbone.text_encoders),
        strict=True,
    )
    return {
        f"{part}.{name}": weight.detach()
        for part, model in parts
        for name, weight in model.named_parameters()
        if "token_embedding" not in name
    }


def _unmeasured(
    bench: Bench, run: Attempt, *, names: Sequence[str], learnt: str
) -> Iterator[tuple[str, tuple[Attempt, str]]]:
    """Yield the variants that have no row: name, run, and the hash of what decides its row."""
    for name in names:
        one = replace(run, method=replace(run.method, name=name))
        made_of = hashlib.sha256(f"{learnt} {name}".encode()).hexdigest()
        if finished_row(bench.out, one, fingerprint=made_of) is None:
            yield name, (one, made_of)


def measure(out: Path, part: tuple[int, int]) -> None:
    """Measure every n-th scene from the i-th on, 1-based."""
    protocol = read_protocol(PROTOCOL)
    bench = open_bench(protocol, out, device="cpu")
    bench = replace(bench, tell=lambda sentence: print(sentence, file=sys.stderr, flush=True))
    others = tuple(method for method in protocol.methods if method.name != WHOLE)
    late = [name for name in variants() if name.startswith("without ")]
    early = [name for name in variants() if name not in late]
    for names in (early, late):  # what tells least comes when every scene has the rest
        for folder in protocol.scenes["development"][part[0] - 1 :: part[1]]:
            own = replace(protocol, scenes={"development": (folder,)})
            for run in own.runs():
                if run.method.name == WHOLE:
                    measure_variants(bench, run, scene=load_scene(folder), names=names)
            run_benchmark(replace(bench, protocol=replace(own, methods=others)))


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the page's tables in Markdown, by name."""
    methods = methods_of(rows)
    order = [name for name in variants() if name in methods]
    order += [name for name in methods if name not in order]
    means = {name: _label(rows, name) for name in order}
    return {
        "means": markdown(
            "what is drawn with",
            SHORT,
            {
                label: [rounded(method_interval(rows, name, metric=k)) for k in SHORT]
                for name, label in means.items()
            },
        ),
        **{
            f"to_{reference.replace('-', '_')}": markdown(
                f"difference to {reference}",
                SHORT,
                {n: against(rows, n, reference, SHORT) for n in order if n != reference},
            )
            for reference in (WHOLE, OURS)
        },
        "layers": _layers(rows),
    }


def _label(rows: Sequence[Row], method: str) -> str:
    numbers = [row["n_parameters"] for row in rows if row["method"] == method]
    return f"{method}: {np.mean(numbers):,.0f} numbers"


def _layers(rows: Sequence[Row]) -> str:
    """Return, by kind of layer, where the energy lies, what cuts keep of it, what rank it needs."""
    heads = ["layers", "numbers", "energy", *(f"kept: {name}" for name in CUTS), "rank for 90 %"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    of = {
        name: [row["kept"] for row in rows if row["method"] == name and "kept" in row]
        for name in variants()
    }
    for kind in KINDS if of[WHOLE] else ():

        def mean(name: str, key: str, kind: str = kind) -> float:
            return float(np.mean([kept[kind][key] for kept in of[name]] or [np.nan]))

        shares = [f"{mean(name, 'energy') / mean(WHOLE, 'energy'):.2f}" for name in CUTS]
        needed, most = (
            [rank for kept in of[name] for rank in kept[kind]["ranks"]] for name in (ENERGY, WHOLE)
        )
        told = "–"
        if needed:
            span = f"{min(needed)} to {max(needed)}"
            told = f"{np.median(needed):.0f} ({span}) of {np.median(most):.0f}"
        share = f"{mean(WHOLE, 'energy'):.3f}"
        lines.append([kind, f"{mean(WHOLE, 'numbers'):,.0f}", share, *shares, told])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure, or write the tables of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="folder of the rows and pictures")
    parser.add_argument("--part", default="1/1", help="i/n: every n-th scene from the i-th on")
    parser.add_argument("--table", type=Path, metavar="ROWS")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.out:
        number, n_parts = map(int, options.part.split("/"))
        measure(options.out, (number, n_parts))
    if options.table:
        made = tables(list(known_rows(options.table).values()))
        if options.page:
            page = options.page.read_text("utf-8")
            options.page.write_text(filled(page, made), "utf-8")
        else:
            print("\n".join(f"{name}\n\n{text}" for name, text in made.items()))


if __name__ == "__main__":
    main()

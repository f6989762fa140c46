"""Where each module is tested: in the file that mirrors it, or in the one that is named here."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "lora_scene"
ELSEWHERE = {
    "test_documents.py": "errors recipe/reading",
    "test_files.py": "faults file_groups ownership targets written",
    "test_journey.py": "cli/demo",
    "test_packaging.py": "cli/paths",
    "adapters/test_attachment.py": "adapters/fit adapters/layers adapters/layouts"
    " adapters/embedding_checks adapters/formats/metadata adapters/formats/embeddings",
    "adapters/test_exports.py": "adapters/adapter adapters/formats/modelspec"
    " adapters/gallery"
    " adapters/probe adapters/stated adapters/verification adapters/whole_pipeline"
    " adapters/writing cli/export cli/verify",
    "adapters/test_full_size_keys.py": "adapters/formats/diffusers adapters/formats/kohya",
    "adapters/test_hub.py": "adapters/card_checks adapters/staging cli/card cli/pull cli/push",
    "adapters/test_inspection.py": "cli/inspect",
    "adapters/test_merging.py": "adapters/renaming cli/merge",
    "adapters/test_untrusted.py": "adapters/formats/factors backbones/tensor_header",
    "backbones/test_backbone.py": "backbones/families",
    "backbones/test_kinds.py": "backbones/noise_schedules backbones/pipeline_folder"
    " backbones/single_file",
    "backbones/test_compiling.py": "backbones/switches",
    "backbones/test_loading.py": "backbones/completeness",
    "cli/test_creating.py": "cli/complete cli/decompose cli/edit cli/interpolate cli/options"
    " cli/picture_options cli/variations",
    "cli/test_evaluate.py": "cli/evaluation_view",
    "cli/test_machine.py": "cli/doctor cli/estimate cli/estimate_view",
    "cli/test_study.py": "cli/study_view",
    "cli/test_terminal.py": "cli/progress cli/training_view",
    "creating/test_editing.py": "creating/completion creating/windows",
    "creating/test_generation.py": "creating/records",
    "creating/test_requests.py": "creating/limits",
    "creating/test_rendering.py": "adapters/vocabulary creating/encoding",
    "judging/test_embedded_judge.py": "judging/judge",
    "judging/test_evaluation.py": "judging/kept_pictures judging/watched_drawing",
    "judging/test_picking.py": "cli/pick judging/base_features judging/pick_sheet"
    " judging/run_picking judging/taking",
    "judging/test_scores.py": "judging/comparison",
    "learning/test_checkpoints.py": "learning/base_pictures",
    "learning/test_draws.py": "learning/latents scenes/run_prompts",
    "learning/test_estimates.py": "learning/simulation",
    "learning/test_resume.py": "learning/interruption learning/lineage learning/run_lines"
    " learning/runs",
    "learning/test_training.py": "learning/events learning/outcome learning/phases"
    " learning/job learning/preparation learning/prior learning/samples"
    " learning/step",
    "cli/test_ask.py": "cli/report",
    "learning/test_watching.py": "learning/asking learning/attention_pictures"
    " learning/held learning/leftovers learning/run_charts learning/run_log learning/run_page"
    " learning/run_record learning/tracking",
    "page/test_draft.py": "page/draft_files page/proposal",
    "page/test_page.py": "page/pointing page/look page/photo_step"
    " page/pictures_step page/server page/share_step page/stage",
    "page/test_trainings.py": "page/course",
    "recipe/test_recipe.py": "recipe/consistency recipe/settings recipe/shown recipe/templates"
    " recipe/tree",
    "scenes/test_manifest.py": "scenes/folder_names",
    "scenes/test_masks.py": "scenes/doubts",
    "scenes/test_framing.py": "scenes/canvas size",
    "scenes/segmenters/test_grabcut.py": "scenes/segmenters/marks",
    "scenes/segmenters/test_sam.py": "scenes/segmenters/automatic scenes/segmenters/segmenter",
    "workshop/test_benchmark_page.py": "pages plotting workshop/plots workshop/tables",
    "workshop/test_protocol.py": "workshop/soundness",
    "workshop/test_study_analysis.py": "workshop/study_answers",
    "workshop/test_trials.py": "workshop/fingerprints workshop/methods",
}


def test_every_module_has_its_tests() -> None:
    named = {name: file for file, names in ELSEWHERE.items() for name in names.split()}
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("[!_]*.py")}
    homeless = {m for m in modules if not (HERE / m.parent / f"test_{m.name}").is_file()}
    missing = {m.with_suffix("").as_posix() for m in homeless} - named.keys()
    assert sorted(missing) == [], "say in ELSEWHERE where they are tested"
    assert named.keys() <= {m.with_suffix("").as_posix() for m in modules}, "some are gone"
    assert [file for file in ELSEWHERE if not (HERE / file).is_file()] == []


def test_no_two_modules_share_a_name() -> None:
    names = [path.stem for path in PACKAGE.rglob("[!_]*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_two_public_functions_or_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                homes.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    shared = {name: places for name, places in homes.items() if len(places) > 1}
    assert shared.keys() == {"command"}, shared  # each verb's, in a file of its own


def test_every_warning_is_of_the_kind_that_command_line_and_page_show() -> None:
    hidden = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "warnings.warn(" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                kinds = [ast.unparse(given) for given in node.args[1:]]
                hidden += [] if kinds == ["LoraSceneWarning"] else [f"{path}:{node.lineno}"]
    assert hidden == []


def test_every_benchmark_can_be_begun() -> None:
    for path in sorted((HERE.parent / "benchmarks").glob("*.py")):
        importlib.import_module(f"benchmarks.{path.stem}")

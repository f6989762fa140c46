"""Two-phase training: first the rows, then rows and adapters (Break-A-Scene, section 3.1).

scene, recipe -> base loaded -> variants encoded, VAE moved away -> [prior, grounds drawn]
  -> handles spliced in -> phase 1 -> phase 2 -> adapter saved
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import RECIPE, save_adapter
from lora_scene.adapters.whole_model import FULL_MODEL
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import resolve_device
from lora_scene.backbones.sources import note_base
from lora_scene.errors import NonFiniteLossError
from lora_scene.file_groups import remove_ours, written_together
from lora_scene.files import write_json, write_text
from lora_scene.folder_lock import locked
from lora_scene.learning.asking import TRAINING, answered, asked
from lora_scene.learning.beginning import Beginning, merge_beginning
from lora_scene.learning.checkpoints import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
)
from lora_scene.learning.devices import (
    fast_float32,
    forked_rng,
    memory_advice,
    peak_bytes,
    refuse_ranks,
    reset_peak,
)
from lora_scene.learning.drawn_before import draw_before
from lora_scene.learning.events import Listener, Notice, Saved
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.job import Job
from lora_scene.learning.leftovers import clear, forget_tries, keep_for_longer, own_folder
from lora_scene.learning.outcome import assemble_adapter
from lora_scene.learning.phases import Trainer
from lora_scene.learning.preparation import (
    check_early,
    lineage_on,
    load_base,
    prepare_handles,
    prepare_materials,
    tell_doubts,
)
from lora_scene.learning.run_log import RunLog
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.runs import (
    CHECKPOINT,
    EVENTS,
    LAST_GOOD,
    SUMMARY,
    TrainingResult,
    finished,
    resumable,
    summary,
)
from lora_scene.learning.step import all_finite
from lora_scene.learning.watching import Watcher, began, page_at_the_end
from lora_scene.ownership import LISTING, list_folder, own_files
from lora_scene.recipe import Recipe, dump_recipe
from lora_scene.scenes.scene import Scene


def train(
    scene: Scene,
    recipe: Recipe,
    *,
    out: Path | str,
    device: str = "auto",
    listener: Listener | None = None,
    restart: bool = False,
    begin: Beginning | None = None,
    interruption: Interruption | None = None,
) -> TrainingResult:
    """Learn a scene's handles and adapters; go on where an interrupted run of the same stopped.

    On the CPU the result is bit for bit the same, however often the run was interrupted; some CPUs
    need `MKL_CBWR=AUTO,STRICT` in the environment for it, which the command line sets.

    Args:
        scene: What is learnt from.
        recipe: Every setting.
        out: Folder of the result; checkpoints and samples go there too.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.
        listener: Told what happens.
        restart: Discard what `out` holds of an earlier run.
        begin: An earlier adapter or a LoRA, merged into the base: see `read_beginning`.
        interruption: Asks the run to stop after a step, with a checkpoint.

    Raises:
        InterruptedRunError: It did.
        AdapterError: `begin` does not fit the base or the scene.
        FileError: `out` cannot be written, or another run writes into it.
        SceneError: A concept that cannot be learnt, or a prompt that would be cut.
        TrainingError: `out` holds another run; a loss is not finite; memory ran out.
        BackboneError: The base cannot be loaded.
        RecipeError: A setting does not fit the base.
    """
    begun = time.perf_counter()
    refuse_ranks()
    out = own_folder(Path(out), scene, recipe, restart=restart, begin=begin)
    tell: Listener = listener or (lambda event: None)
    if recipe.run.watch:
        tell = RunLog(out / EVENTS, tell)
    chosen = resolve_device(device)
    with (
        locked(out, purpose=TRAINING),
        memory_advice(recipe),
        fast_float32(torch.device(chosen)),
        forked_rng(chosen),
    ):
        answered(out, asked(out))  # of a run before: who finds this one's lock may ask already
        backbone = load_base(scene, recipe, chosen, tell, begin)
        check_early(backbone, recipe, tell)
        base_hash, mine = lineage_on(backbone, scene, recipe, begin, out)
        note_base(recipe.base.model, base_hash)
        if not restart and (earlier := finished(out, mine, recipe)) is not None:
            more = "" if recipe.is_full else "more phase2.steps go on with it, "
            tell(Notice(f"{out} is finished already; {more}--restart trains anew"))
            return earlier
        heard = interruption or Interruption()
        start = begin and merge_beginning(begin, backbone, base_hash, tell)
        job = Job(scene, recipe, out, chosen, base_hash, mine, tell, heard, start, restart)
        result = _train(backbone, job, begun)
    tell(Saved("adapter", out))
    return result


def _train(backbone: Backbone, job: Job, begun: float) -> TrainingResult:
    """Train what is not finished, and write what the run was; it was called at `begun`."""
    out, recipe = job.out, job.recipe
    reset_peak(torch.device(job.device))
    if not job.restart:
        _open_log(backbone, job)
    with page_at_the_end(job):
        result = _learn(backbone, job, begun)
    _tell_result(result, job.tell)
    keep_for_longer(out, recipe)
    if recipe.run.watch:
        write_run_page(out)
    return result


def _open_log(backbone: Backbone, job: Job) -> None:
    """Write down what is told from here on; forget tries that left nothing to go on from."""
    if newest_checkpoint(job.out / CHECKPOINT) is None:
        forget_tries(job.out)
    if isinstance(job.tell, RunLog):
        job.tell.open(began(job, backbone))


def _tell_result(result: TrainingResult, tell: Listener) -> None:
    """Say what a run did not do."""
    if result.unlearnt:
        names = ", ".join(result.unlearnt)
        tell(Notice(f"not learnt: {names} never had a gradient; more steps may draw what none did"))
    if result.n_skipped:
        tell(Notice(f"{result.n_skipped} steps were skipped, for something was not finite"))


def _learn(backbone: Backbone, job: Job, begun: float) -> TrainingResult:
    """Run both phases from the beginning or a checkpoint, and save what was learnt."""
    resumed = None if job.restart else resumable(job.out, job.fingerprint, job.recipe)
    tell_doubts(job.scene, backbone, job.recipe, job.tell)
    materials = prepare_materials(backbone, job)
    table = prepare_handles(backbone, job, materials)
    materials = draw_before(backbone, job, table, materials)
    if job.restart:  # nothing refuses this run any more
        clear(job.out)
        _open_log(backbone, job)
    watcher = Watcher(job, lambda trainer: _collect(trainer, job))
    trainer = Trainer(
        backbone,
        table,
        materials=materials,
        folder=job.out,
        listener=job.tell,
        interruption=job.interruption,
        before=watcher.begin,
        after=watcher.after,
    )
    write_text(job.out / RECIPE, dump_recipe(job.recipe))
    with trainer.table.spliced():
        _run(trainer, job, resumed)
        job.interruption.obey()
        adapter = _collect(trainer, job)
    return _saved(adapter, trainer, job, begun)


def _saved(adapter: Adapter, trainer: Trainer, job: Job, begun: float) -> TrainingResult:
    """Write what was learnt in the place of what an earlier run left, with its record."""
    if job.recipe.is_full:
        with trainer.as_delivered(), written_together(job.out / FULL_MODEL) as aside:
            trainer.backbone.pipeline.save_pretrained(aside)
            write_json(aside / LISTING, list_folder(aside))
    result = TrainingResult(
        adapter,
        job.out,
        time.perf_counter() - begun,
        peak_bytes(torch.device(job.device)),
        sum(parameter.numel() for parameter in trainer.parameters()),
        trainer.table.unreached if any(p.rows_lr and p.steps for p in job.recipe.phases) else (),
        trainer.skips.n,
        trainer.ended,
    )
    # together: an adapter without a record would be refused as none that a training made
    colours = trainer.materials.colours
    record = summary(result, job.fingerprint, job.recipe, job.scene, colours=colours)
    save_adapter(adapter, job.out, records={SUMMARY: record})
    if not job.recipe.is_full:  # one of the run before
        remove_ours(job.out / FULL_MODEL, own_files(job.out / FULL_MODEL))
    return result


def _run(trainer: Trainer, job: Job, resumed: Checkpoint | None) -> None:
    """Run both phases, or what is left of them."""
    for number in (1, 2):
        is_behind = resumed is not None and resumed.phase > number
        if is_behind or not job.recipe.phases[number - 1].steps:
            continue
        if trainer.ended:
            break
        is_inside = resumed is not None and resumed.phase == number
        try:
            trainer.run_phase(number, resumed=resumed if is_inside else None)
        except NonFiniteLossError as error:
            raise _with_last_good(error, trainer, job) from error


def _with_last_good(error: NonFiniteLossError, trainer: Trainer, job: Job) -> NonFiniteLossError:
    """Keep the last adapter whose numbers are finite; say where it is."""
    path = trainer.checkpoint_path
    if not all_finite(trainer.parameters()):
        kept_at = newest_checkpoint(path)
        if kept_at is None:
            return error
        trainer.go_back(load_checkpoint(kept_at))
    if all_finite(trainer.parameters()):
        kept = save_adapter(_collect(trainer, job), job.out / LAST_GOOD)
        hint = f"{error.hint}; the last good adapter lies in {kept}"
        return NonFiniteLossError(error.what, where=error.where, hint=hint)
    return error


def _collect(trainer: Trainer, job: Job) -> Adapter:
    with trainer.as_delivered():
        return assemble_adapter(
            trainer.backbone,
            trainer.table,
            recipe=job.recipe,
            scene=job.scene,
            base_hash=job.base_hash,
            steps=trainer.steps_done,
            begun=job.begun,
        )

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_scene.adapters.layers import lora_layers
from lora_scene.creating.picture_files import read_record, save_picture
from lora_scene.creating.requests import Request, Sampling
from lora_scene.errors import CreationError, JudgingError, LoraSceneWarning
from lora_scene.judging import evaluation, watched_drawing
from lora_scene.judging.evaluation import (
    draw_and_weigh,
    evaluate,
    measure_drift,
    save_evaluation,
    untouched_base,
    weigh,
)
from lora_scene.judging.finding import Sighting
from lora_scene.judging.kept_pictures import KeptPictures
from lora_scene.judging.plans import Cell, Plan
from lora_scene.judging.watched_drawing import Drawn, draw_watched, training_maps
from tests.creating import studios
from tests.judging import fakes

QUIET = pytest.mark.filterwarnings(studios.QUIET)
pytestmark = QUIET
PLAN = Plan(
    prompts=("a photo of {} on grass",), seeds=(0, 1), sampling=Sampling(n_steps=2), n_drift=2
)


def test_an_evaluation_measures_every_prompt_subset_and_seed(tmp_path) -> None:
    done = []
    result = evaluate(
        studios.studio(), fakes.scene(), judge=fakes.judge(), plan=PLAN,
        progress=lambda n, n_all: done.append((n, n_all)),
    )  # fmt: skip
    assert len(result.scores) == 3 * 2
    assert done == [(n, 6) for n in range(1, 7)]
    assert {one.subset for one in result.scores} == {(0,), (1,), (0, 1)}
    assert set(result.concepts) == {"<bear>", "<bowl>"}
    assert all(value is None or np.isfinite(value) for value in result.summary.values())
    assert 0 <= result.summary["attention_iou"] <= 1
    save_evaluation(result, tmp_path)
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert kept["summary"] == result.summary
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_the_regions_of_one_picture_are_held_at_a_time() -> None:
    alive: list[int] = []
    found: weakref.WeakSet[Sighting] = weakref.WeakSet()

    class Finder(fakes.PlaceFinder):
        def find(self, pixels, concepts):
            alive.append(len(found))
            sighted = super().find(pixels, concepts)
            found.update(sighted)
            return sighted

    cells = [Cell((0, 1), Request("<bear> <bowl>", seed), "bear bowl") for seed in range(5)]
    pixels = fakes.picture(fakes.RED, fakes.BLUE)
    drawn = [Drawn(cell.asked, pixels, (), np.zeros((0, 2, 2))) for cell in cells]
    judge = replace(fakes.judge(), finder=Finder())
    weighed = weigh(cells, drawn, scene=fakes.scene(), judge=judge)
    assert [len(one.comparison.owners) for one in weighed.scores] == [2] * 5
    assert max(alive) <= 2, "the two things of the picture before"


def test_an_interrupted_evaluation_goes_on_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    plan, unfinished = replace(PLAN, batch_size=4), tmp_path / "cut" / "unfinished"
    render, drawn = watched_drawing.render, []

    def judged(plan):
        return draw_and_weigh(studios.studio(), fakes.scene(), judge=fakes.judge(), plan=plan)

    def breaks_off(studio, batch, **how):
        drawn.append(len(batch))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return render(studio, batch, **how)

    save_evaluation(judged(plan), tmp_path / "whole")
    monkeypatch.setattr(watched_drawing, "render", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        judged(replace(plan, kept=KeptPictures(unfinished)))
    kept = sorted(unfinished.iterdir())
    assert len(kept) == 4
    assert read_record(kept[0])["prompt"].startswith("a photo of <bear>")
    again = replace(plan, kept=KeptPictures(unfinished))
    save_evaluation(judged(again), tmp_path / "cut")
    assert drawn == [4, 2, 2], "the first batch once"
    again.kept.forget()
    files = [{p.name: p.read_bytes() for p in (tmp_path / w).iterdir()} for w in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_kept_batch_is_taken_up_for_the_same_alone(tmp_path) -> None:
    studio, kept = studios.studio(), KeptPictures(tmp_path / "kept")
    batch = [Request("a <bear>", seed, sampling=Sampling(1)) for seed in (0, 1)]
    maps = np.random.default_rng(0).random((1, 4, 4), dtype=np.float32)
    pixels = [fakes.picture(fakes.RED, None), fakes.picture(None, fakes.BLUE)]
    pairs = zip(batch, pixels, strict=True)
    kept.keep(studio, [Drawn(one, own, ("<bear>",), maps) for one, own in pairs])
    found = kept.find(studio, batch)
    assert [one.asked for one in found] == batch
    assert [one.handles for one in found] == [("<bear>",)] * 2
    for one, own in zip(found, pixels, strict=True):
        assert np.array_equal(one.pixels, own)
        assert np.array_equal(one.maps, maps)
        assert one.maps.dtype == maps.dtype
    others = (
        {"seed": 2}, {"prompt": "a <bowl>"}, {"weight": 0.5}, {"sampling": Sampling(2)},
        {"sampling": Sampling(1, 2.0)}, {"negative": "snow"},
    )  # fmt: skip
    for other in others:
        assert kept.find(studio, [batch[0], replace(batch[1], **other)]) == [], other
    assert kept.find(studio, batch[:1]) == [], "alone it might round otherwise"
    assert kept.find(studios.studio("sd1", 2), batch) == [], "another adapter"
    assert kept.find(replace(studio, base_hash="0"), batch) == [], "another base"
    assert kept.find(replace(studio, base_hash=""), batch) == [], "who knows which base"
    path = sorted((tmp_path / "kept").iterdir())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes(20))
    assert kept.find(studio, batch) == [], "damaged"
    path.write_bytes(whole)
    (tmp_path / "kept" / "of_a_user.png").write_bytes(b"")
    kept.forget()
    assert [one.name for one in (tmp_path / "kept").iterdir()] == ["of_a_user.png"]


def test_the_untouched_bases_pictures_are_drawn_once_for_all_weights(tmp_path, monkeypatch) -> None:
    render, drawn = watched_drawing.render, []

    def counts(studio, batch, **how):
        drawn.append([one.weight for one in batch])
        return render(studio, batch, **how)

    monkeypatch.setattr(watched_drawing, "render", counts)
    plan = replace(PLAN, sampling=Sampling(1), kept=KeptPictures(tmp_path / "kept"))
    how = {"base": None, "judge": fakes.judge()}
    for weight in (0.5, 1.0):
        own = replace(plan, weight=weight)
        measure_drift(studios.studio(), fakes.scene(), plan=own, **how)
    assert drawn == [[0.0] * 2, [0.5] * 2, [1.0] * 2]


def test_a_disk_that_keeps_nothing_is_told_once_and_stops_no_judgement(tmp_path) -> None:
    (tmp_path / "kept").write_text("a file")
    kept = KeptPictures(tmp_path / "kept")
    wanted = [Request("a <bear>", seed) for seed in (0, 1)]
    drawn = draw_watched(studios.studio(), wanted, sampling=Sampling(1), batch_size=1, kept=kept)
    with pytest.warns(LoraSceneWarning, match="is lost if this is interrupted") as told:
        assert len(list(drawn)) == 2
    assert len(told) == 1


def test_an_evaluation_replaces_neither_another_one_nor_pictures_of_other_verbs(tmp_path) -> None:
    one = evaluate(studios.studio(), fakes.scene(), judge=fakes.judge(), plan=PLAN)
    frame = save_picture(tmp_path / "000.png", one.pictures[1], {"verb": "interpolate"})
    before = frame.read_bytes()
    assert save_evaluation(one, tmp_path) == tmp_path / "evaluation_2.json"
    assert frame.read_bytes() == before
    two = replace(one, scores=one.scores[:2], pictures=one.pictures[:2])
    assert save_evaluation(two, tmp_path) == tmp_path / "evaluation_3.json"
    for n, result in ((2, one), (3, two)):
        kept = json.loads((tmp_path / f"evaluation_{n}.json").read_text())
        pictures = sorted(tmp_path.glob(f"*_{n}.png"))
        assert len(kept["pictures"]) == len(pictures) == len(result.pictures)
        for path, pixels in zip(pictures, result.pictures, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    assert save_evaluation(one, tmp_path).name == "evaluation_2.json", "it lies there already"


def test_at_weight_0_other_prompts_do_not_drift() -> None:
    still = evaluate(
        studios.studio(), fakes.scene(), judge=fakes.judge(), plan=replace(PLAN, weight=0.0)
    )
    assert still.summary["drift"] == pytest.approx(0, abs=1e-5)


def test_a_scene_with_other_handles_is_refused() -> None:
    scene = fakes.scene()
    other = replace(scene, concepts=(scene.concepts[0], replace(scene.concepts[1], handle="<cup>")))
    with pytest.raises(JudgingError, match=r"another scene[\s\S]*<cup>"):
        evaluate(studios.studio(), other, judge=fakes.judge(), plan=PLAN)


def test_things_of_one_noun_are_refused_where_nouns_find_them() -> None:
    scene = fakes.scene()
    twins = replace(scene, concepts=tuple(replace(c, noun="object") for c in scene.concepts))
    with pytest.raises(JudgingError, match="two things of one noun"):
        evaluate(studios.studio(), twins, judge=fakes.judge(), plan=PLAN)


def test_attention_is_measured_at_the_plan_s_weight_and_where_things_are_shown(monkeypatch) -> None:
    scene, studio, weights = fakes.scene(), studios.studio(), []

    def watched(one, *args, **kwargs):
        weights.append(next(iter(lora_layers(one.pipeline, "unet")[0].scaling.values())))
        return training_maps(one, *args, **kwargs)

    monkeypatch.setattr(evaluation, "training_maps", watched)
    empty = replace(scene.photos[0], masks=0 * scene.photos[0].masks)
    more = replace(scene, photos=(*scene.photos, empty))
    for weight in (1.0, 0.5):
        evaluate(studio, more, judge=fakes.judge(), plan=replace(PLAN, weight=weight))
    full, half = weights
    assert half == full / 2


def test_watching_changes_no_picture() -> None:
    from lora_scene.creating.generation import draw

    studio, sampling = studios.studio(), Sampling(n_steps=2)
    wanted = [Request("a photo of <bear> on grass", 3, weight=weight) for weight in (1.0, 0.25)]
    for one, watched in zip(wanted, draw_watched(studio, wanted, sampling=sampling), strict=True):
        [(_, plain)] = draw(studio, [replace(one, sampling=sampling)])
        difference = np.abs(watched.pixels.astype(int) - plain.pixels.astype(int)).max()
        assert difference == 0, (one.weight, difference)


def test_a_prompt_that_would_be_cut_stops_before_the_first_picture() -> None:
    studio = studios.studio(n_vectors=8)
    wanted = [Request("a photo of <bear>"), Request("a photo of <bear> and <bowl> in fur")]
    with pytest.raises(CreationError, match=r"<bowl> in fur: a prompt that is too long"):
        next(draw_watched(studio, wanted, sampling=Sampling(n_steps=1), batch_size=1))


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_maps_are_recorded_for_the_handles_of_each_prompt(guidance) -> None:
    studio = studios.studio(n_vectors=2)
    wanted = [Request("a photo of <bowl> and <bear>"), Request("a photo of grass")]
    two, none = draw_watched(studio, wanted, sampling=Sampling(n_steps=2, guidance=guidance))
    assert two.handles == ("<bowl>", "<bear>")
    assert two.maps.shape == (2, 4, 4)
    assert (two.maps > 0).all()
    assert two.maps.max() <= 1
    assert none.maps.shape == (0, 4, 4)


def test_training_maps_have_a_map_a_handle() -> None:
    maps = training_maps(
        studios.studio(), fakes.scene().photos[0].pixels, "a photo of <bear>", shares=(0.2, 0.8)
    )
    assert maps.shape == (1, 4, 4)
    assert ((maps > 0) & (maps < 1)).all()


def test_only_a_fine_tuned_base_needs_the_untouched_one() -> None:
    assert untouched_base(studios.studio()) is None

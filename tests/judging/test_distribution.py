from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import JudgingError
from lora_scene.judging.distribution import (
    compare_sets,
    coverage,
    fid,
    inception_score,
    kid,
    read_pictures,
)
from lora_scene.picture_writing import write_picture
from tests.judging import fakes


def normal(n: int, mean: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(mean, 1.0, (n, 3)).astype(np.float32)


def directions(seed: int, mean: float = 0) -> np.ndarray:
    vectors = normal(200, mean, seed)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_fid_of_shifted_sets_is_the_squared_distance_of_their_means() -> None:
    points = normal(400, 0, 0)
    assert fid(points, points) == pytest.approx(0, abs=1e-3)
    assert fid(points, points + 2) == pytest.approx(3 * 2**2, rel=1e-3)


def test_fid_counts_a_wider_spread() -> None:
    points = normal(400, 0, 0)
    spread = np.cov(points.T)
    expected = (points.mean(axis=0) ** 2).sum() + np.trace(spread)  # (2 - 1)^2 of both moments
    assert fid(points, 2 * points) == pytest.approx(expected, rel=1e-3)


def test_kid_is_near_zero_for_one_distribution_and_not_for_two() -> None:
    same, _ = kid(directions(0), directions(1))
    other, _ = kid(directions(0), directions(1, mean=2))
    assert abs(same) < 0.1 < other
    assert kid(directions(0), directions(1, mean=2))[0] == other


def test_kid_sees_more_than_means() -> None:
    """Two opposite clusters and one ring, all around the origin."""
    clusters = directions(0) * 0
    clusters[::2, 0], clusters[1::2, 0] = 1, -1
    assert kid(clusters, directions(1))[0] > 1


def test_the_inception_score_counts_sure_and_varied_classes() -> None:
    sure = 100 * np.eye(4, dtype=np.float32)
    assert inception_score(sure) == pytest.approx(4, rel=1e-4)
    assert inception_score(sure[[0, 0, 0, 0]]) == pytest.approx(1, rel=1e-4)


def test_precision_falls_for_strangers_and_recall_for_what_is_left_out() -> None:
    reference = np.concatenate([normal(50, 0, 0), normal(50, 50, 1)])
    strangers = np.concatenate([normal(50, 0, 2), normal(50, -90, 3)])
    assert coverage(reference, reference) == 1
    assert coverage(reference, strangers) == pytest.approx(0.5, abs=0.1)
    assert coverage(strangers, reference) == pytest.approx(0.5, abs=0.1)


def test_a_neighbourhood_reaches_to_the_third_nearest() -> None:
    anchors = np.array([[0, 0], [1, 0], [3, 0], [6, 0], [20, 0]], np.float32)
    assert coverage(anchors, np.array([[-5.9, 0], [-6.1, 0]], np.float32)) == 0.5


def test_a_small_set_comes_with_its_warnings() -> None:
    rng = np.random.default_rng(0)
    pictures = [fakes.picture(tuple(rng.integers(0, 100, 3)), fakes.BLUE) for _ in range(6)]
    encoder = fakes.ColourEncoder()
    report = compare_sets(
        pictures, pictures, encoder, captions=encoder, classes=["a bear", "a bowl"]
    )
    assert report.fid == pytest.approx(0, abs=1e-4)
    assert report.precision == report.recall == 1
    assert report.inception_score == pytest.approx(1, abs=0.1)
    assert "6 pictures are few" in report.warnings[0]


def test_too_small_sets_are_refused() -> None:
    pictures = [fakes.picture(fakes.RED, None)] * 3
    with pytest.raises(JudgingError, match="too few pictures"):
        compare_sets(pictures, pictures, fakes.ColourEncoder())


def test_pictures_are_read_from_a_folder_and_below(tmp_path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.png", "below/a.jpg"):
        Image.fromarray(fakes.picture(fakes.RED, None)).save(tmp_path / name)
    for name in ("below/grid.png", "below/strip_2.png"):  # sheets of the program's own
        write_picture(tmp_path / name, Image.new("RGB", (8, 8)))
    write_picture(tmp_path / "unfinished" / "a.png", Image.new("RGB", (8, 8)))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [one.shape for one in read_pictures(tmp_path)] == [(64, 64, 3)] * 2
    with pytest.raises(JudgingError, match="no pictures"):
        read_pictures(tmp_path / "none")

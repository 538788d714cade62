from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pixel_oracles import METHOD, Pixels, failed_image, random_images, write_results

from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.scales import Float32, Probability
from oodray.metrics.tally import Tally, score_keys
from oodray.records import struct_of
from oodray.results.cells import clusters_of
from oodray.results.reading import read_rows
from oodray.results.rows import ClusterRow, ScoreTally
from oodray.results.sums import score_counts

CLUSTER, SCORE_TALLY = struct_of(ClusterRow), struct_of(ScoreTally)

AT_1, AT_2 = 0xBC00, 0xC000  # the keys of the confidences 1.0 and 2.0
ONE = {"k": 5, "cluster": 0, "pixels": 9, "ratio": 0.5, "keys": [AT_1, AT_2], "labels": [0, 1], "counts": [4, 5]}
TWO = {"k": 5, "cluster": 1, "pixels": 2, "ratio": 0.0, "keys": [AT_1], "labels": [255], "counts": [2]}


def column(*rows: object) -> pa.ChunkedArray[Any]:
    return pa.chunked_array([pa.array(rows, pa.list_(CLUSTER))])


def test_clusters_know_their_image() -> None:
    clusters = clusters_of(column([ONE, TWO], None, [], [ONE]))
    assert clusters.row.tolist() == [0, 0, 3]
    assert clusters.cluster.tolist() == [0, 1, 0]
    assert clusters.pixels.tolist() == [9, 2, 9]
    assert clusters.cells.owner.tolist() == [0, 0, 1, 2, 2]
    assert clusters.cells.owners == 3


def test_chunks_and_slices_do_not_matter() -> None:
    whole = pa.array([[TWO], [ONE, TWO], None, [ONE]], pa.list_(CLUSTER))
    for pieces in ([whole[1:]], [whole[1:2], whole[2:2], whole[2:4]]):
        clusters = clusters_of(pa.chunked_array(pieces))
        assert clusters.row.tolist() == [0, 0, 2]
        assert clusters.k.tolist() == [5, 5, 5]
        assert clusters.cells.keys.tolist() == [AT_1, AT_2, AT_1, AT_1, AT_2]
        assert clusters.cells.owner.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("rows", [[], [None], [[]], [None, []]])
def test_no_clusters_are_no_clusters(rows: list[object]) -> None:
    clusters = clusters_of(column(*rows))
    assert len(clusters.row) == len(clusters.ratio) == len(clusters.cells.keys) == 0
    assert clusters.unsure(1.5).tolist() == clusters.labelled(0).tolist() == []
    assert clusters.ood(Rule(5, 1.5, 0.3)).tolist() == []


def test_counts_by_cluster() -> None:
    clusters = clusters_of(column([ONE, TWO], [ONE]))
    assert clusters.unsure(1.0).tolist() == [0, 0, 0], "strictly below"
    assert clusters.unsure(1.0001).tolist() == [4, 2, 4], "tau is not rounded to float16"
    assert clusters.unsure(2.0).tolist() == [4, 2, 4]
    assert clusters.unsure(math.inf).tolist() == [9, 2, 9]
    assert clusters.ood(Rule(5, 2.0, 0.4)).tolist() == [True, True, True]
    assert clusters.ood(Rule(5, 2.0, 0.5)).tolist() == [False, True, False]
    assert [clusters.labelled(label).tolist() for label in (0, 1, 255)] == [[4, 0, 4], [5, 0, 5], [0, 2, 0]]


def test_a_tally_of_chosen_cells() -> None:
    cells = clusters_of(column([ONE, TWO], [ONE])).cells
    expected = Tally.from_arrays([AT_1, AT_2, AT_1], [0, 1, 255], [8, 10, 2])
    assert cells.tally(np.ones(5, np.bool_)) == expected
    assert cells.tally(cells.owner == 1) == Tally.from_arrays([AT_1], [255], [2])


def test_scores_are_told_apart() -> None:
    tallies = [
        {"score": name, "scale": scale, "keys": [key], "labels": [1], "counts": [3]}
        for name, scale, key in (("a", "probability", 1), ("b", "float32", 2**31 + 5))
    ]
    counts = score_counts(pa.chunked_array([pa.array([tallies, None, tallies[1:]], pa.list_(SCORE_TALLY))]))
    assert {name: (of.scale, of.keys.tolist(), of.ood.tolist()) for name, of in counts.items()} == {
        "a": (Probability(), [1], [3]),
        "b": (Float32(), [2**31 + 5], [6]),
    }


def test_results_without_a_scale_are_those_of_float16() -> None:
    older = pa.struct([SCORE_TALLY.field(name) for name in ("score", "keys", "labels", "counts")])
    keys = score_keys(np.array([-1.5, 2.0], np.float16)).tolist()
    rows = pa.array([[{"score": "energy", "keys": keys, "labels": [0, 1], "counts": [3, 4]}]], pa.list_(older))
    counts = score_counts(pa.chunked_array([rows]))["energy"]
    assert (counts.scores().tolist(), counts.ind.tolist(), counts.ood.tolist()) == ([-1.5, 2.0], [3, 0], [0, 4])


@pytest.mark.parametrize(
    ("scales", "problem"),
    [
        (("real:0.0:4.0", "real:0.0:2.0"), r"two scales, real:0\.0:4\.0 and real:0\.0:2\.0"),
        (("log",), "unknown scale .*'log'"),
    ],
)
def test_tallies_that_do_not_go_together_are_refused(scales: tuple[str, ...], problem: str) -> None:
    rows = [[{"score": "a", "scale": scale, "keys": [1], "labels": [1], "counts": [3]}] for scale in scales]
    with pytest.raises(ResultsError, match=problem):
        score_counts(pa.chunked_array([pa.array(rows, pa.list_(SCORE_TALLY))]))


def test_what_was_written_is_what_the_pixels_say(tmp_path: Path) -> None:
    images = random_images(3, 6)
    folder = write_results(tmp_path, [images[:4], [failed_image("x")], images[4:]])
    table = read_rows(folder.parts())
    clusters = clusters_of(table["clusters"])
    pixels = [Pixels(image) for image in images]
    assert np.bincount(clusters.row).tolist() == [len(np.unique(p.cluster)) for p in pixels[:4]] + [0] + [
        len(np.unique(p.cluster)) for p in pixels[4:]
    ]
    for label in (0, 1, 255):
        assert clusters.labelled(label).sum() == sum((p.label == label).sum() for p in pixels)
    assert clusters.ood(Rule(METHOD.k, METHOD.tau, METHOD.ood_ratio)).tolist() == [
        bool(p.mask[p.cluster == cluster][0]) for p in pixels for cluster in np.unique(p.cluster)
    ]
    energy = np.concatenate([p.scores["energy"].ravel() for p in pixels])
    labels = np.concatenate([p.label.ravel() for p in pixels])
    counts = score_counts(table["tallies"])["energy"]
    for label, pixels_of_label in ((1, counts.ood), (0, counts.ind)):
        values, expected = np.unique(energy[labels == label], return_counts=True)
        assert counts.scores()[pixels_of_label > 0].tolist() == values.tolist()
        assert pixels_of_label[pixels_of_label > 0].tolist() == expected.tolist()

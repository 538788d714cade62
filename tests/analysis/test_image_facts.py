from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import Run
from small_run import SmallRun

from oodray.analysis.files import CountedFiles
from oodray.analysis.images import ImageFacts, image_facts, images_in_brief, mean_ood_fraction
from oodray.analysis.labels import refuse_without_labels
from oodray.api.run import open_run
from oodray.datasets.images import decode_label, read_bytes
from oodray.datasets.layouts import get_layout
from oodray.errors import DatasetError
from oodray.metrics.scales import scale_named
from oodray.results.rows import RESULT_SCHEMA


def facts_of(run: Run) -> list[ImageFacts]:
    return image_facts(CountedFiles.of(run.folder), run.folder.rule())


def test_images_are_judged_as_their_masks_are(clean: Run) -> None:
    opened = open_run(clean.folder.path)
    uris = opened.images.set_index("image_id")["label_uri"]
    facts = facts_of(clean)
    assert [image.image_id for image in facts] == opened.images["image_id"].tolist()
    for image in facts:
        label = decode_label(read_bytes(uris[image.image_id]), get_layout("ade-ood").label_codes)
        mask = opened.mask(image.image_id) > 0
        expected = [
            int(((label == is_ood) & (mask == inside)).sum())
            for is_ood, inside in ((1, True), (1, False), (0, True), (0, False))
        ]
        assert [image.found, image.missed, image.false, image.known] == expected
        assert image.ood_fraction == mask.mean()
    assert mean_ood_fraction(facts) == pytest.approx(opened.images["ood_fraction"].mean())


def test_a_score_of_an_image_has_95_percent_of_the_pixels_below_or_at_it(clean: Run) -> None:
    rows = open_run(clean.folder.path).images
    for image, tallies in zip(facts_of(clean), rows["tallies"], strict=True):
        assert set(image.scores) == {tally["score"] for tally in tallies}
        for tally in tallies:
            keys = np.repeat(np.asarray(tally["keys"], np.uint32), tally["counts"])
            values = sorted(scale_named(tally["scale"]).scores(keys).tolist())
            assert image.scores[tally["score"]] == values[int(0.95 * len(values))]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_what_needs_no_tallies_is_the_same(clean: Run, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, files = facts_of(clean), CountedFiles.of(clean.folder)
    [whole] = files.tables(RESULT_SCHEMA.names)
    pieces = [whole.slice(first, 3) for first in range(0, whole.num_rows, 3)]
    monkeypatch.setattr(CountedFiles, "tables", lambda _, columns: [piece.select(columns) for piece in pieces])
    found = images_in_brief(files, most)
    ranked = sorted(facts, key=lambda image: (-(image.image_score or 0), -(image.ood_fraction or 0), image.image_id))
    assert [image.image_id for image in found.most_anomalous] == [image.image_id for image in ranked[:most]]
    assert [image.ood_fraction for image in found.most_anomalous] == [image.ood_fraction for image in ranked[:most]]
    assert found.mean_ood_fraction == pytest.approx(mean_ood_fraction(facts))


def test_failed_images_have_no_numbers(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    run.add("a")
    run.fail("b", "cannot be read")
    folder = run.write()
    good, failed = image_facts(CountedFiles.of(folder), folder.rule())
    found = images_in_brief(CountedFiles.of(folder), 9)
    assert [image.image_id for image in found.most_anomalous] == [good.image_id]
    assert found.mean_ood_fraction == good.ood_fraction
    assert (good.status, failed.status, failed.error, failed.scores, failed.labelled) == (
        "ok",
        "error",
        "cannot be read",
        {},
        0,
    )


def test_runs_without_labels_are_refused(tmp_path: Path) -> None:
    run = SmallRun(tmp_path)
    run.add("a")
    with pytest.raises(DatasetError, match=r"no image of .* has a label, so nothing goes; `oodray report"):
        refuse_without_labels(run.write(), "nothing goes")


def test_runs_with_labels_are_not(clean: Run) -> None:
    refuse_without_labels(clean.folder, "nothing goes")

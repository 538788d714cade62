"""The images of a run one by one: what was found in each, and how far that is from its label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oodray.analysis.files import CountedFiles
from oodray.method.rule import Rule
from oodray.metrics.tally import IN_DISTRIBUTION, OOD
from oodray.results.cells import clusters_of
from oodray.results.rows import OK, STAGES
from oodray.results.sums import score_counts_by_row

QUANTILE = 0.95
"""Which of the pixels' scores stands for an image: the one that this share of the pixels lies below."""

_PLAIN = ("unit", "image_id", "dataset", "status", "error", "warning", "height", "width", "ood_fraction", "image_score")
_MOST_ANOMALOUS_FIRST: list[tuple[str, Literal["ascending", "descending"]]] = [
    ("image_score", "descending"),
    ("ood_fraction", "descending"),
    ("image_id", "ascending"),
]
_SECONDS = tuple(f"seconds_{stage}" for stage in STAGES)


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What a run knows of an image, in numbers. What a failed image lacks is None or 0.

    Attributes:
        unit: the unit that it belongs to.
        image_id: its id.
        dataset: name of its dataset.
        status: `"ok"` or `"error"`.
        error: what went wrong.
        warning: what is doubtful.
        height: in pixels.
        width: in pixels.
        ood_fraction: share of the pixels that the mask holds.
        image_score: the largest ratio of a cluster.
        found: OoD pixels inside the mask.
        missed: OoD pixels outside the mask.
        false: in-distribution pixels inside the mask.
        known: in-distribution pixels outside the mask.
        scores: by score, the value that 95 % of the pixels lie below.
        seconds: by stage, what it took.
    """

    unit: int
    image_id: str
    dataset: str
    status: str
    error: str | None = None
    warning: str | None = None
    height: int | None = None
    width: int | None = None
    ood_fraction: float | None = None
    image_score: float | None = None
    found: int = 0
    missed: int = 0
    false: int = 0
    known: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def labelled(self) -> int:
        """Pixels that have a label, ignored ones not counted."""
        return self.found + self.missed + self.false + self.known


def image_facts(files: CountedFiles, rule: Rule | None) -> list[ImageFacts]:
    """The facts of every image that is done, in the order of the dataset.

    Args:
        files: of a run.
        rule: the setting at which clusters are judged; None where there are none, as with imported scores.

    Raises:
        ResultsError: a file cannot be read.
    """
    columns = [*_PLAIN, *_SECONDS, "clusters", "tallies"]
    return [facts for table in files.tables(columns) for facts in _facts(table, rule)]


@dataclass(frozen=True)
class ImagesInBrief:
    """What was found in the images of a run, in a few words.

    Attributes:
        most_anomalous: images with the highest image scores, as `image_facts` has them, without what needs tallies.
        mean_ood_fraction: mean share of an image that its mask holds; None where no image has a mask.
    """

    most_anomalous: list[ImageFacts]
    mean_ood_fraction: float | None


TABLES_AT_ONCE = 64
"""Of files and row groups, that are sorted together."""


def images_in_brief(files: CountedFiles, most: int) -> ImagesInBrief:
    """What was found in the images that are done, and up to so many of them. Of the others no object is made.

    Raises:
        ResultsError: a file cannot be read.
    """
    candidates: list[pa.Table] = []
    masks, shares = 0, 0.0
    for table in files.tables([*_PLAIN]):
        masks += table.num_rows - table["ood_fraction"].null_count
        shares += pc.sum(table["ood_fraction"]).as_py() or 0.0
        candidates.append(table)
        if len(candidates) == TABLES_AT_ONCE:
            candidates = [_most_anomalous(candidates, most)]
    return ImagesInBrief(
        most_anomalous=[ImageFacts(**row) for row in _most_anomalous(candidates, most).to_pylist()]
        if candidates
        else [],
        mean_ood_fraction=shares / masks if masks else None,
    )


def _most_anomalous(tables: list[pa.Table], most: int) -> pa.Table:
    rows = pa.concat_tables(tables)
    return rows.filter(pc.is_valid(rows["image_score"])).sort_by(_MOST_ANOMALOUS_FIRST).slice(0, most)


def _facts(table: pa.Table, rule: Rule | None) -> Iterator[ImageFacts]:
    rows = table.select([*_PLAIN, *_SECONDS]).to_pylist()
    judged = np.zeros((4, len(rows)), np.int64) if rule is None else _judged(table["clusters"], len(rows), rule)
    scores = _image_scores(table["tallies"])
    for index, row in enumerate(rows):
        seconds = {stage: row.pop(f"seconds_{stage}") for stage in STAGES}
        found, missed, false, known = judged[:, index].tolist()
        yield ImageFacts(
            **row,
            found=found,
            missed=missed,
            false=false,
            known=known,
            scores=scores[index] if row["status"] == OK else {},
            seconds={stage: spent for stage, spent in seconds.items() if spent is not None},
        )


def _judged(column: pa.ChunkedArray[Any], rows: int, rule: Rule) -> NDArray[np.int64]:
    """`(4, rows)`: OoD pixels inside and outside each mask, then in-distribution pixels inside and outside."""
    clusters = clusters_of(column)
    own = clusters.k == rule.k
    inside = clusters.ood(rule)
    counts = np.zeros((4, rows), np.int64)
    for line, (label, chosen) in enumerate(
        [(OOD, inside), (OOD, ~inside), (IN_DISTRIBUTION, inside), (IN_DISTRIBUTION, ~inside)]
    ):
        pixels = clusters.labelled(label)
        np.add.at(counts[line], clusters.row[own & chosen], pixels[own & chosen])
    return counts


def _image_scores(column: pa.ChunkedArray[Any]) -> list[dict[str, float]]:
    """By row, the value of each score that `QUANTILE` of the pixels lie below."""
    return [
        {score: counts.quantile(QUANTILE) for score, counts in of_row.items()} for of_row in score_counts_by_row(column)
    ]


def mean_ood_fraction(images: Sequence[ImageFacts]) -> float | None:
    """Mean share of an image that its mask holds; None where no image has a mask.

    >>> image = ImageFacts(unit=0, image_id="a", dataset="folder", status="ok", ood_fraction=0.25)
    >>> mean_ood_fraction([image]), mean_ood_fraction([])
    (0.25, None)
    """
    shares = [image.ood_fraction for image in images if image.ood_fraction is not None]
    return float(np.mean(shares)) if shares else None

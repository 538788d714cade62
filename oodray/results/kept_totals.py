"""The counts of closed waves, kept beside their files: an evaluation reads the rows of no such wave.

`OUT/totals/` has a file for every large wave. It is written when the wave is closed, as all its rows pass by then, or
else by the first evaluation. What it was counted of is in its name: the content of the wave, by the digest of its
footer, and the rule by which clusters were judged. So a wave that was written anew is counted anew.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.evaluation import Totals
from oodray.metrics.pixel_counts import PixelCounts
from oodray.metrics.scales import Float32, scale_named
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, Tally
from oodray.records import Int64, Int64List, UInt8List, UInt32List, from_arrow, table_of
from oodray.results.folder import ResultsFolder
from oodray.results.names import Wave
from oodray.results.reading import count_rows, footer_of
from oodray.results.rows import ClassCounts
from oodray.results.sums import RowSums
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

TOTALS = "totals"
"""The folder of the files."""

VERSION = 1
"""Raised when the same rows would give other counts."""

KEPT_FROM = 500
"""Images of a wave whose counts are kept: fewer are read in a moment."""

_INSIDE, _OUTSIDE = "inside", "outside"


@dataclass(frozen=True)
class KeptTally:
    """Pixels by key and label: of a score, which has a scale, or inside or outside of the masks."""

    name: str
    scale: str | None
    keys: UInt32List
    labels: UInt8List
    counts: Int64List


@dataclass(frozen=True)
class KeptTotals:
    """`Totals` as they are stored: a table of one row; clusters are `(4, c)`, row by row, classes at most one entry."""

    images: Int64
    failed: Int64
    scores: list[KeptTally]
    masks: list[KeptTally]
    clusters: Int64List
    classes: list[ClassCounts]


def totals_file(wave: Place, rule: Rule | None) -> Place:
    """Where the counts of a closed wave are kept.

    Raises:
        ResultsError: the wave cannot be read.
    """
    rule_text = json.dumps(None if rule is None else asdict(rule))
    digest = hashlib.sha256(footer_of(wave) + f"{rule_text} {VERSION}".encode()).hexdigest()[:16]
    return wave.parent.parent / TOTALS / f"{wave.stem}.{digest}.parquet"


def sums_for(folder: ResultsFolder, parts: Sequence[Place]) -> RowSums | None:
    """What the rows of a wave are added to while it is closed.

    None for a small wave, whose counts are not kept, and for a pass over images that fixes no K, tau and T.

    Args:
        folder: of the run.
        parts: the files of the units of the wave, which have about as many images each.

    Raises:
        ResultsError: one cannot be read.
    """
    if len(parts) * count_rows(parts[0]) < KEPT_FROM:
        return None
    try:
        return RowSums(folder.rule())
    except ResultsError:
        return None


def keep_totals(folder: ResultsFolder, wave: Wave, sums: RowSums | None) -> None:
    """Keep the counts of a wave that has just been closed, if it is a large one.

    Raises:
        ResultsError: the wave cannot be read.
        RunError: the file cannot be written.
    """
    if sums is not None:
        write_totals(totals_file(folder.results / wave.name, folder.rule()), sums.total())


def read_totals(path: Place) -> Totals | None:
    """The counts in a file; None where there is none, or none that can be read."""
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
        [kept] = from_arrow(KeptTotals, table.to_batches()[0].to_struct_array())
    except (OSError, ValueError, KeyError, IndexError, pa.ArrowException):
        return None
    masks = {tally.name: Tally.from_arrays(tally.keys, tally.labels, tally.counts) for tally in kept.masks}
    return Totals(
        images=kept.images,
        failed=kept.failed,
        scores={tally.name: _score_counts(tally) for tally in kept.scores},
        inside=masks[_INSIDE],
        outside=masks[_OUTSIDE],
        clusters=kept.clusters.reshape(4, -1),
        classes=kept.classes[0].tally() if kept.classes else None,
    )


def write_totals(path: Place, totals: Totals) -> None:
    """Keep counts; those of the same wave as it was before go.

    Scores whose values mostly differ are not kept: what is known of them is as large as the rows that it is of.

    Raises:
        RunError: the file cannot be written.
    """
    if any(isinstance(counts, PixelCounts) for counts in totals.scores.values()):
        return
    kept = KeptTotals(
        images=totals.images,
        failed=totals.failed,
        scores=[_kept_counts(name, counts) for name, counts in totals.scores.items()],
        masks=[
            KeptTally(name, None, tally.keys.astype(np.uint32), tally.labels, tally.counts)
            for name, tally in ((_INSIDE, totals.inside), (_OUTSIDE, totals.outside))
        ],
        clusters=np.ascontiguousarray(totals.clusters).ravel(),
        classes=[] if totals.classes is None else [ClassCounts.of(totals.classes)],
    )
    before = [*path.parent.glob(f"{path.name.partition('.')[0]}.*")]
    with replacing(path) as temporary:
        pq.write_table(table_of(KeptTotals, [kept]), temporary, compression="zstd")
    for other in before:
        if other.name != path.name:
            other.unlink(missing_ok=True)


def _kept_counts(name: str, counts: ScoreCounts) -> KeptTally:
    rows = ((OOD, counts.ood), (IN_DISTRIBUTION, counts.ind), (IGNORE, counts.ignored))
    there = [(label, pixels, np.flatnonzero(pixels)) for label, pixels in rows]
    return KeptTally(
        name,
        counts.scale.name,
        np.concatenate([counts.keys[at] for _, _, at in there]).astype(np.uint32),
        np.concatenate([np.full(len(at), label, np.uint8) for label, _, at in there]),
        np.concatenate([pixels[at] for _, pixels, at in there]),
    )


def _score_counts(tally: KeptTally) -> ScoreCounts:
    scale = scale_named(tally.scale)
    keys = tally.keys if isinstance(scale, Float32) else tally.keys.astype(np.uint16)
    return ScoreCounts.of(scale, keys, tally.labels, tally.counts)

"""Which unit each image of a run is in: as its folder has it, where the run was begun.

Units are cut when a run starts. What is continued keeps them, also where another version would cut anew; images that
are appended get further units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oodray.datasets.manifest import MANIFEST_SCHEMA, image_ids, listing_digest, read_manifest, share_of, with_units
from oodray.datasets.unit_size import cut_by_size
from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder

APPENDED = "appended"
"""Of run.json: how many images a run had before each time that some were appended."""

_LISTED = [name for name in MANIFEST_SCHEMA.names if name != "unit"]


def numbered(
    folder: ResultsFolder, listed: pa.Table, share: tuple[int, int] | None = None, *, append: bool = False
) -> pa.Table:
    """The manifest of a run, or of a share of it, in units as its folder has them, or as they are listed.

    Args:
        folder: of the results.
        listed: what the dataset holds now.
        share: which share of how many is computed here.
        append: whether images that the run has not seen are added to it.

    Raises:
        ResultsError: images are to be appended, and some of those that are there have changed; or the folder has lost
            the units of a run to which images were appended.
    """
    run = folder.read_run() if folder.run.exists() else None
    stored = None if run is None else _stored(folder, run)
    if run is not None and stored is not None:
        if append:
            return _appended(folder, stored, listed)
        if _is_of(run, stored, listed, share):
            return stored
    return listed if share is None else share_of(listed, *share)


def _stored(folder: ResultsFolder, run: Mapping[str, Any]) -> pa.Table | None:
    """The manifest of a folder; None where it can be made again."""
    try:
        return read_manifest(folder.manifest)
    except ResultsError as error:
        if run.get(APPENDED):
            raise ResultsError(
                f"{error}. Images were appended to this run, so nothing else says in which units they are: put a copy "
                "of the file back, or choose another --out"
            ) from error
        return None


def _is_of(run: Mapping[str, Any], stored: pa.Table, listed: pa.Table, share: tuple[int, int] | None) -> bool:
    """Whether a stored manifest lists the same, or its share of it."""
    if run["identity"].get("manifest") != listing_digest(listed):
        return False
    all_there = stored.num_rows == listed.num_rows if share is None else stored.num_rows > 0
    return all_there and not _other_than(stored, listed)


def _other_than(stored: pa.Table, listed: pa.Table) -> list[str]:
    """The images of a manifest that another one has not, or with another file or label."""
    at = pc.index_in(stored["image_id"], value_set=listed["image_id"].combine_chunks())
    known = stored.filter(pc.is_valid(at))
    same = listed.take(at.drop_null()).select(_LISTED)
    unlike = pa.array([False] * known.num_rows)
    for name in _LISTED:
        pair: list[Any] = [table[name].combine_chunks().fill_null("") for table in (known, same)]
        unlike = pc.or_(unlike, pc.not_equal(*pair))
    return [*image_ids(stored.filter(pc.is_null(at))), *image_ids(known.filter(unlike))]


def _appended(folder: ResultsFolder, stored: pa.Table, listed: pa.Table) -> pa.Table:
    other = _other_than(stored, listed)
    if other:
        raise ResultsError(
            f"--append takes images that were added, and {len(other)} of the {stored.num_rows} images of {folder.path} "
            f"are not in the dataset any more, or with another file or label, the first is {other[0]}. "
            "Choose another --out, or pass --overwrite to start anew"
        )
    new = listed.filter(pc.invert(pc.is_in(listed["image_id"], value_set=stored["image_id"].combine_chunks())))
    if not new.num_rows:
        return stored
    units = cut_by_size(new)["unit"].to_numpy()
    first = int(stored["unit"].to_numpy().max()) + 1
    return pa.concat_tables([stored, with_units(new, units + first)]).combine_chunks()

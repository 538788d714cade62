"""The shares of a run, which drivers have computed one each, become the run that they are of.

The rows are not read: the files of the shares are linked into the results folder, or copied, each whole or not at all.
So a merge that is killed is finished by the same command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from oodray.datasets.manifest import listing_digest, read_manifest
from oodray.errors import ResultsError
from oodray.ranges import shard_of
from oodray.results.continuing import difference, refuse_another, start_or_continue
from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

_OF_A_SESSION = ("identity", "started", "finished", "images", "seconds", "oodray", "versions")
"""What `run.json` says of the computing, and not of what was asked for."""


@dataclass(frozen=True)
class Share:
    """One of the folders to join.

    Attributes:
        folder: of its results.
        run: its `run.json`.
        number: which share it is, from 1.
        of: how many there are.
    """

    folder: ResultsFolder
    run: Mapping[str, Any]
    number: int
    of: int

    @classmethod
    def read(cls, folder: ResultsFolder) -> Share:
        """The share in a folder.

        Raises:
            ResultsError: it holds none, or one that is not finished.
        """
        run = folder.read_run()
        asked = run["identity"].get("shard")
        if asked is None:
            raise ResultsError(f"{folder.path} holds no share of a run: `oodray run --shard I/N` makes them")
        if "finished" not in run:
            raise ResultsError(f"the share {asked} in {folder.path} is not finished: run its command again, then merge")
        return cls(folder, run, *shard_of(asked))

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run that it is a share of."""
        return {**self.run["identity"], "shard": None}


def read_shares(outs: Sequence[ResultsFolder]) -> list[Share]:
    """The shares in some folders, by number.

    Raises:
        ResultsError: one is missing, given twice or not finished, or they are not of one run; the message names it.
    """
    shares = sorted((Share.read(out) for out in outs), key=lambda share: share.number)
    if not shares:
        raise ResultsError("name the folders of the shares to merge")
    first = shares[0]
    for share in shares[1:]:
        changed = [name for name in first.identity if share.identity.get(name) != first.identity[name]]
        changed += [name for name in share.identity if name not in first.identity]
        if changed or share.of != first.of:
            of = "" if share.of == first.of else f"they are of {first.of} and of {share.of} shares; "
            what = "; ".join(difference(name, first.identity.get(name), share.identity.get(name)) for name in changed)
            raise ResultsError(
                f"{first.folder.path} and {share.folder.path} are not of one run: {of}{what}".rstrip("; ")
            )
    numbers = [share.number for share in shares]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        given = " and ".join(str(share.folder.path) for share in shares if share.number == twice)
        raise ResultsError(f"the share {twice}/{first.of} is given twice: {given}")
    missing = [f"{number}/{first.of}" for number in range(1, first.of + 1) if number not in numbers]
    if missing:
        raise ResultsError(f"these shares are missing: {', '.join(missing)}; `oodray run --shard` computes them")
    return shares


def merge_shares(shares: Sequence[Share], folder: ResultsFolder) -> None:
    """Join the shares of a run in a folder, a new one or one in which a merge was begun; the shares stay.

    Raises:
        ResultsError: the folder holds something else, the shares do not hold every image once, or a file cannot be
            read.
        RunError: the folder cannot be written to.
    """
    if any(folder.path.resolve() == share.folder.path.resolve() for share in shares):
        raise ResultsError(f"{folder.path} is one of the shares: name another --out")
    run, identity = shares[0].run, shares[0].identity
    manifest = _joined(shares, identity)
    if folder.run.exists():
        refuse_another(folder.path, "run", folder.read_run()["identity"], identity)
    description = {name: value for name, value in run.items() if name not in _OF_A_SESSION}
    description["config"] = {**run["config"], "shard": None}
    description["dataset"] = {**run["dataset"], "images": manifest.num_rows}
    start_or_continue(folder, manifest, identity, description)
    files = {path.name: path for share in shares for path in share.folder.parts()}
    there = {path.name for path in folder.parts()}
    strange = sorted(there - files.keys())
    if strange:
        raise ResultsError(
            f"{folder.path} holds {strange[0]}, which is of no share: a run was continued there. Continue it, or name "
            "another --out"
        )
    for name, path in files.items():
        if name not in there:
            _take(path, folder.results / name)
    for path in (path for share in shares for path in share.folder.totals.glob("part-*")):
        # Counts of files that are the same here: an evaluation does not read these.
        if not (folder.totals / path.name).exists():
            _take(path, folder.totals / path.name)


def other_versions_of_shares(shares: Sequence[Share]) -> str | None:
    """A warning where shares were computed with other versions of the packages that decide their numbers."""
    kinds = [{"oodray": share.run.get("oodray"), **share.run.get("versions", {})} for share in shares]
    other = sorted({name for kind in kinds for name in kind if kind[name] != kinds[0].get(name)})
    if not other:
        return None
    return f"the shares were computed with several versions of {', '.join(other)}: last digits may differ, or more"


def _joined(shares: Sequence[Share], identity: Mapping[str, Any]) -> pa.Table:
    """The manifest of the run, of which every unit is in one share."""
    tables = [read_manifest(share.folder.manifest) for share in shares]
    units = np.concatenate([np.unique(table["unit"].to_numpy()) for table in tables])
    manifest = pa.concat_tables(tables).combine_chunks()
    if len(np.unique(units)) < len(units) or listing_digest(manifest) != identity["manifest"]:
        paths = ", ".join(str(share.folder.path) for share in shares)
        raise ResultsError(
            f"{paths} do not hold every image of their run once: the images were cut into other units. Compute the "
            "shares with one version of oodray"
        )
    for share, table in zip(shares, tables, strict=True):
        _refuse_gaps(share, table)
    return manifest


def _refuse_gaps(share: Share, manifest: pa.Table) -> None:
    lacking = sorted({*np.unique(manifest["unit"].to_numpy()).tolist()} - finished_units(share.folder))
    if lacking:
        raise ResultsError(
            f"the share in {share.folder.path} lacks {len(lacking)} of its units, the first is {lacking[0]}: run its "
            "command again, then merge"
        )


def _take(source: Place, target: Place) -> None:
    """Make a file of a share one of the run: a link to the same content where both lie on one drive, else a copy."""
    if isinstance(source, Path) and isinstance(target, Path):
        # A link appears whole, and nothing ever writes into a file of results that is there.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    with replacing(target) as temporary:
        if isinstance(source, Path):
            shutil.copyfile(source, temporary)
        else:
            temporary.write_bytes(source.read_bytes())

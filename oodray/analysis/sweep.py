"""The sweep of a run: from the files of its results to one row per setting, without images or network.

Files give small grids of clusters (`_tabulate`), the grids of one K give its rows (`_sweep_k`); where there are many
files, Ray runs both as tasks. What is computed is the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.analysis.calibration import run_confidence
from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.cluster.shares import usable_cores
from oodray.errors import ConfigError, DatasetError, ResultsError
from oodray.method.rule import check_ood_ratios, exceeded
from oodray.metrics.cells import Cells
from oodray.metrics.sweep import MAX_SETTINGS, ClusterGrid, Columns, best_settings, sweep, sweep_mask_then_logit
from oodray.metrics.tally import IN_DISTRIBUTION, MAX_BITS, OOD, first_key_at_least, snap_threshold
from oodray.ranges import round_range
from oodray.results.cells import clusters_of
from oodray.results.folder import ResultsFolder

_TAIL = 0.0005  # share of the confidences at either end that a sweep leaves out

TAUS_PER_TASK = 16
"""Values of tau that one task sweeps with `mask-then-logit`, which takes most of the time."""


NOTHING_FOUND = "no mask of any setting holds a pixel that is labelled OoD"


@dataclass(frozen=True)
class Request:
    """What to sweep.

    Attributes:
        ks: values of K, ascending, each of which the run has clustered.
        taus: values of tau, ascending.
        ood_ratios: values of T, ascending.
        with_mask_then_logit: whether to sweep that score, too.
        bits: of the keys of the run's tallies: below 16, a tau that is no edge of theirs is moved to the nearest.
    """

    ks: tuple[int, ...]
    taus: tuple[float, ...]
    ood_ratios: tuple[float, ...]
    with_mask_then_logit: bool = False
    bits: int = MAX_BITS

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many K, tau and T."""
        return len(self.ks), len(self.taus), len(self.ood_ratios)

    def taus_used(self) -> list[float]:
        """The values that the tallies serve exactly."""
        return [snap_threshold(tau, self.bits) for tau in self.taus]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep, one row per setting: K by K, tau by tau, T by T.

    Attributes:
        request: what was swept.
        table: columns `k, tau, ood_ratio, ratio_ap, ratio_fpr95, precision, recall, f1, iou`; with `mask-then-logit`
            its two; with coarse tallies `tau_used`.
    """

    request: Request
    table: pa.Table

    def setting(self, index: int) -> dict[str, Any]:
        """A row."""
        row: dict[str, Any] = self.table.slice(index, 1).to_pylist()[0]
        return row

    def best(self, count: int) -> list[int]:
        """Rows of the settings with the best F1, each the best among its neighbours."""
        columns = {"f1": self.table["f1"].to_numpy()}
        return best_settings(columns, self.request.shape, count)

    def chosen(self) -> int:
        """The row with the best F1 of all, the first of several.

        Raises:
            DatasetError: no setting finds anything: nothing is labelled OoD, or no mask of any holds such a pixel.
        """
        if not self.finds_any:
            raise DatasetError(f"{NOTHING_FOUND}: there is nothing to choose a setting by")
        return int(np.nanargmax(self.table["f1"].to_numpy()))

    @property
    def finds_any(self) -> bool:
        """Whether the mask of some setting holds a pixel that is labelled OoD."""
        return bool((self.table["f1"].to_numpy() > 0).any())


def make_request(
    folder: ResultsFolder, taus: Sequence[float], ood_ratios: Sequence[float], *, with_mask_then_logit: bool = False
) -> Request:
    """The grid over every K that a run has clustered.

    Raises:
        ConfigError: a T that is none, or a grid that is too large.
        ResultsError: if the folder holds no run that clustered.
    """
    rule = folder.clustering_rule()
    config = folder.read_run()["config"]
    check_ood_ratios(ood_ratios)
    request = Request(
        ks=tuple(sorted({rule.k, *config.get("sweep_k", ())})),
        taus=tuple(sorted(taus)),
        ood_ratios=tuple(sorted(ood_ratios)),
        with_mask_then_logit=with_mask_then_logit,
        bits=config.get("confidence_bits", MAX_BITS),
    )
    settings = int(np.prod(request.shape))
    if settings > MAX_SETTINGS:
        raise ConfigError(f"{settings:,} settings are more than a sweep takes, {MAX_SETTINGS:,}; use larger steps")
    return request


def usual_taus(folder: ResultsFolder) -> str:
    """The range of tau where the confidences of a run lie, but for a thousandth of them: what a sweep tries by default.

    Raises:
        ResultsError: if the folder holds no run that clustered, or no image that was processed.
    """
    k = folder.clustering_rule().k
    confidence, images, _ = run_confidence(CountedFiles.of(folder), k)
    if not images:
        raise ResultsError(f"{folder.path} holds no image that was processed: there is nothing to sweep")
    return round_range(confidence.quantile(_TAIL), confidence.quantile(1 - _TAIL))


def edges(request: Request, setting: Mapping[str, Any]) -> list[str]:
    """Which options a setting reaches the end of, beyond which there may be a better one."""
    taus, ood_ratios = request.taus, request.ood_ratios
    found = []
    if len(taus) > 1 and setting["tau"] in (taus[0], taus[-1]):
        found.append("--tau")
    inner = {ood_ratios[0], ood_ratios[-1]} - {0.0, 1.0}
    if len(ood_ratios) > 1 and setting["ood_ratio"] in inner:
        found.append("--ood-ratio")
    return found


def sweep_run(folder: ResultsFolder, request: Request, *, on_ray: bool = True) -> Sweep:
    """Sweep the finished files of a run, with `on_ray` by Ray tasks where there are more than `FILES_PER_TASK`.

    Raises:
        ResultsError: if the folder holds no results.
    """
    files = CountedFiles.of(folder)
    by_tasks = on_ray and len(files.parts) > FILES_PER_TASK
    by_k = _by_tasks(files, request) if by_tasks else _here(files, request)
    columns = {name: np.concatenate([found[name] for found in by_k]) for name in by_k[0]}
    columns = _settings(request) | columns
    return Sweep(request, pa.table({name: pa.array(values) for name, values in columns.items()}))


@dataclass(frozen=True, eq=False)
class _Piece:
    """The clusters of one K in some files: what `metrics.sweep` takes, `cells` being owned by those of `grid`."""

    grid: ClusterGrid
    cells: Cells

    @staticmethod
    def join(pieces: Sequence[_Piece]) -> _Piece:
        if len(pieces) == 1:
            return pieces[0]
        return _Piece(ClusterGrid.join([piece.grid for piece in pieces]), Cells.join([piece.cells for piece in pieces]))


def _settings(request: Request) -> dict[str, NDArray[Any]]:
    ks, taus, ood_ratios = request.shape
    columns: dict[str, NDArray[Any]] = {
        "k": np.repeat(np.array(request.ks, np.int32), taus * ood_ratios),
        "tau": np.tile(np.repeat(request.taus, ood_ratios), ks),
        "ood_ratio": np.tile(request.ood_ratios, ks * taus),
    }
    if request.bits < MAX_BITS:
        columns["tau_used"] = np.tile(np.repeat(request.taus_used(), ood_ratios), ks)
    return columns


def _here(files: CountedFiles, request: Request) -> list[Columns]:
    """The metrics, K by K."""
    by_k = _tabulate(files, request)
    with ThreadPoolExecutor(usable_cores()) as threads:
        return list(threads.map(partial(_sweep_k, request, slice(None)), by_k))


def _by_tasks(files: CountedFiles, request: Request) -> list[Columns]:
    """The same from tasks of Ray: of files first, then of the values of tau of each K."""
    import ray

    from oodray.cluster.session import tasks

    # Ray's types know of one return value alone.
    tabulate: Any = ray.remote(_tabulated).options(num_returns=len(request.ks) + 1)
    sweep_k = ray.remote(_sweep_k)
    step = TAUS_PER_TASK if request.with_mask_then_logit else len(request.taus)
    with tasks():
        # A reference for each K, and one that is only there because Ray hands out a single one bare.
        pieces = [tabulate.remote(chunk, request)[:-1] for chunk in files.chunks(FILES_PER_TASK)]
        found = [
            [sweep_k.remote(request, slice(start, start + step), *of_k) for start in range(0, len(request.taus), step)]
            for of_k in zip(*pieces, strict=True)
        ]
        return [_stack(ray.get(of_k)) for of_k in found]


def _stack(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tabulate(files: CountedFiles, request: Request) -> list[_Piece]:
    """The clusters of some files, K by K."""
    tau_keys = [first_key_at_least(tau) for tau in request.taus_used()]
    pieces = [_tabulate_file(table["clusters"], request, tau_keys) for table in files.tables(["clusters"])]
    return [_Piece.join(of_k) for of_k in zip(*pieces, strict=True)]


def _tabulated(files: CountedFiles, request: Request) -> list[_Piece | None]:
    return [*_tabulate(files, request), None]


def _tabulate_file(column: pa.ChunkedArray[Any], request: Request, tau_keys: Sequence[int]) -> list[_Piece]:
    clusters = clusters_of(column)
    unsure = clusters.cells.below(tau_keys)
    ood, ind = clusters.labelled(OOD), clusters.labelled(IN_DISTRIBUTION)
    labels = clusters.cells.labels
    ranked = ((labels == OOD) | (labels == IN_DISTRIBUTION)) & request.with_mask_then_logit
    cells = clusters.cells.where(ranked)
    pieces = []
    for k in request.ks:
        of_k = clusters.k == k
        grid = ClusterGrid(unsure[:, of_k], clusters.pixels[of_k], ood[of_k], ind[of_k])
        pieces.append(_Piece(grid, cells.of_owners(of_k)))
    return pieces


def _sweep_k(request: Request, taus: slice, *pieces: _Piece) -> Columns:
    """The metrics of one K at some of the values of tau."""
    piece = _Piece.join(pieces)
    grid = ClusterGrid(piece.grid.unsure[taus], piece.grid.pixels, piece.grid.ood, piece.grid.ind)
    flagged = np.stack([exceeded(unsure, grid.pixels, request.ood_ratios) for unsure in grid.unsure])
    ood_ratios = len(request.ood_ratios)
    columns = sweep(grid, flagged, ood_ratios)
    if request.with_mask_then_logit:
        columns |= sweep_mask_then_logit(grid, piece.cells, flagged, ood_ratios)
    return columns

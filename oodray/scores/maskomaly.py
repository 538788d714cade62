"""Maskomaly, and which queries of a mask classifier it calls rejected.

Ackermann, Sakaridis and Yu, "Maskomaly: zero-shot mask anomaly segmentation". Two things are ours. The authors chose
the rejected queries of one checkpoint by hand, on images with anomalies; here they are found on images without, by
`oodray fit`: queries that are accepted nowhere there, and that respond to little. Their clearing of borders between
masks, and of the ground, which goes by numbers of queries too, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from oodray.metrics.scales import Real, Scale
from oodray.scores.fitted.fit_in_use import FitInUse, MadeOfFit
from oodray.scores.score import QueryMapScore

if TYPE_CHECKING:
    from torch import Tensor

    from oodray.scores.queries import Queries

ACCEPTED = 0.7
"""Queries whose class is likelier are accepted, where it is not "nothing"."""

SHARE_OF_ACCEPTED = 0.6

LARGEST_RESPONSE = 0.05
"""Mean of s_q p_q over in-distribution pixels that a rejected query has at most."""

SCALE = Real(centre=0.0, unit=2.0**-4)
"""Of the keys: values lie within 0..1."""


class Maskomaly(MadeOfFit, QueryMapScore):
    """.6 min over accepted queries of (1 - s_q p_q) + .4 max over rejected ones of s_q p_q, p_q being the largest.

    Args:
        rejected: the numbers of the rejected queries, see `QueryUse`.

    >>> import torch
    >>> classes = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> Maskomaly([1]).of_queries(classes, torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])).numpy().round(3).tolist()
    [[0.05999999865889549, 0.9200000166893005]]
    """

    name = "maskomaly"
    help = "pixels that no accepted query of a mask classifier holds, and that rejected ones do"
    needs: ClassVar[frozenset[str]] = frozenset({"queries", "fit"})
    scale: Scale = SCALE

    def __init__(self, rejected: Sequence[int]) -> None:
        self.rejected = tuple(rejected)

    @classmethod
    def of_fit(cls, use: FitInUse) -> Self:
        """See `MadeOfFit`: with the queries that the fit found to be rejected."""
        return cls([int(query) for query in use.fit.parameters(cls.name).rejected])

    def of_queries(self, classes: Tensor, masks: Tensor) -> Tensor:
        """See `QueryMapScore`."""
        responses = masks * classes.amax(-1)[:, None, None]
        accepted = responses[accepted_queries(classes)]
        rejected = responses[list(self.rejected)]
        nowhere = masks.new_zeros(masks.shape[1:])
        held = accepted.amax(0) if len(accepted) else nowhere
        unknown = rejected.amax(0) if len(rejected) else nowhere
        return SHARE_OF_ACCEPTED * (1 - held) + (1 - SHARE_OF_ACCEPTED) * unknown


@dataclass(frozen=True, eq=False)
class MaskomalyParameters:
    """Which queries of a network are rejected.

    Attributes:
        rejected: their numbers, ascending, int64.
        queries: how many the network has.
    """

    rejected: NDArray[np.int64]
    queries: int


@dataclass(frozen=True, eq=False)
class QueryUse:
    """What in-distribution images make of the queries; it adds up over images.

    Attributes:
        accepted: `(Q,)` int64, images in which each query is accepted.
        response: `(Q,)` float64, the sum of s_q p_q over pixels of the mask logits, all of them: ignored ones, too.
        pixels: how many those are.
    """

    accepted: NDArray[np.int64]
    response: NDArray[np.float64]
    pixels: int

    @classmethod
    def of(cls, queries: Queries) -> QueryUse:
        """That of an image, at the size of its mask logits; windows count as images."""
        import torch

        classes = queries.class_logits.double().softmax(-1)
        # One query at a time: in float64 all of them would be the largest thing in memory.
        masks = queries.mask_logits.flatten(0, 1)
        sums = torch.stack([mask.double().sigmoid().sum() for mask in masks]).view(classes.shape[:2])
        response = sums * classes.amax(-1)
        accepted = torch.stack([accepted_queries(window) for window in classes])
        windows, _, height, width = queries.mask_logits.shape
        counts = accepted.sum(0).cpu().numpy().astype(np.int64)
        return cls(counts, response.sum(0).cpu().numpy(), windows * height * width)

    def __add__(self, other: QueryUse) -> QueryUse:
        return QueryUse(self.accepted + other.accepted, self.response + other.response, self.pixels + other.pixels)

    def rejected(self) -> list[int]:
        """The numbers of the queries that are accepted nowhere and respond to little."""
        mean = self.response / max(self.pixels, 1)
        return [int(query) for query in np.flatnonzero((self.accepted == 0) & (mean <= LARGEST_RESPONSE))]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name, for a file."""
        return {"accepted": self.accepted, "response": self.response, "pixels": np.asarray(self.pixels)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> QueryUse:
        """From what `to_arrays` gave."""
        return cls(arrays["accepted"], arrays["response"], int(arrays["pixels"]))


def fit_maskomaly(use: QueryUse | None) -> MaskomalyParameters:
    """The rejected queries.

    Raises:
        ValueError: the network has no queries.
    """
    if use is None:
        raise ValueError("it needs a mask classifier: the network gives one map of logits, no queries")
    return MaskomalyParameters(np.array(use.rejected(), np.int64), len(use.accepted))


def accepted_queries(classes: Tensor) -> Tensor:
    """Which of the queries are accepted, `(Q,)`, by their classes `(Q, C + 1)`."""
    certainty, likeliest = classes.max(-1)
    return (likeliest < classes.shape[-1] - 1) & (certainty > ACCEPTED)

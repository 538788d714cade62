"""Maskomaly, and which queries of a mask classifier it calls rejected.

Ackermann, Sakaridis and Yu, "Maskomaly: zero-shot mask anomaly segmentation". Two things are ours. The authors chose
the rejected queries of one checkpoint by hand, on images with anomalies; here they are found on images without: queries
that are accepted nowhere there, and that respond to little. Their clearing of borders between masks, and of the ground,
which goes by numbers of queries too, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.metrics.scales import Real, Scale
from oodray.scores.queries import Queries
from oodray.scores.score import QueryMapScore

ACCEPTED = 0.7
"""Queries whose class is likelier are accepted, where it is not "nothing"."""

SHARE_OF_ACCEPTED = 0.6

LARGEST_RESPONSE = 0.05
"""Mean of s_q p_q over in-distribution pixels that a rejected query has at most."""


class Maskomaly(QueryMapScore):
    """.6 min over accepted queries of (1 - s_q p_q) + .4 max over rejected ones of s_q p_q, p_q being the largest.

    Args:
        rejected: the numbers of the rejected queries, see `QueryUse`.

    >>> classes = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> Maskomaly([1]).of_queries(classes, torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])).numpy().round(3).tolist()
    [[0.05999999865889549, 0.9200000166893005]]
    """

    name = "maskomaly"
    help = "pixels that no accepted query of a mask classifier holds, and that rejected ones do"
    scale: Scale = Real(centre=0.0, unit=2.0**-4)

    def __init__(self, rejected: Sequence[int]) -> None:
        self.rejected = tuple(rejected)

    def of_queries(self, classes: Tensor, masks: Tensor) -> Tensor:
        """See `QueryMapScore`."""
        responses = masks * classes.amax(-1)[:, None, None]
        accepted = responses[accepted_queries(classes)]
        rejected = responses[list(self.rejected)]
        held = accepted.amax(0) if len(accepted) else torch.zeros_like(masks[0])
        unknown = rejected.amax(0) if len(rejected) else torch.zeros_like(masks[0])
        return SHARE_OF_ACCEPTED * (1 - held) + (1 - SHARE_OF_ACCEPTED) * unknown


@dataclass(frozen=True, eq=False)
class QueryUse:
    """What in-distribution images make of the queries; it adds up over images.

    Attributes:
        accepted: `(Q,)` int64, images in which each query is accepted.
        response: `(Q,)` float64, the sum of s_q p_q over pixels of the mask logits.
        pixels: how many those are.
    """

    accepted: NDArray[np.int64]
    response: NDArray[np.float64]
    pixels: int

    @classmethod
    def of(cls, queries: Queries) -> QueryUse:
        """That of an image, at the size of its mask logits; windows count as images."""
        classes = queries.class_logits.double().softmax(-1)
        response = queries.mask_logits.double().sigmoid().sum((-2, -1)) * classes.amax(-1)
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


def accepted_queries(classes: Tensor) -> Tensor:
    """Which of the queries are accepted, `(Q,)`, by their classes `(Q, C + 1)`."""
    certainty, likeliest = classes.max(-1)
    return (likeliest < classes.shape[-1] - 1) & (certainty > ACCEPTED)

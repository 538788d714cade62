"""A bank of feature vectors: a random sample of all positions of all images, which can be drawn image by image.

Every position has a priority, a hash of (seed, image, position); the positions with the least ones are the sample. So
the sample does not depend on who drew which part of it, nor in which order: banks add up. A vector keeps its image, so
that the image can be scored without its own vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.scores.fitted.sums import NO_CLASS, Positions

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def priorities_of(seed: int, image_id: str, positions: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """The priority of each position of an image: uniform in 64 bits, by the mixer SplitMix64 (Steele et al. 2014).

    >>> first, again = (priorities_of(0, "a", np.arange(3)) for _ in range(2))
    >>> bool((first == again).all()), len(set(first.tolist() + priorities_of(1, "a", np.arange(3)).tolist()))
    (True, 6)
    """
    start = np.frombuffer(hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=8).digest(), np.uint64)
    mixed: NDArray[np.uint64] = start + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    for shift, factor in _MIXERS:
        mixed ^= mixed >> shift
        mixed *= factor
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Bank:
    """At most `size` vectors of n, ascending by (priority, image, position): the first ones are a smaller sample.

    Attributes:
        size: of the sample.
        image_ids: images that a vector is of, ascending.
        images: `(n,)` int32, places in `image_ids`.
        positions: `(n,)` int32, on the feature grid of the image, row by row.
        priorities: `(n,)` uint64.
        features: `(n, D)` float32.
        m: maximum logit at the position, `(n,)` float32.
        lse: log-sum-exp of the logits there, `(n,)` float32.
        classes: `(n,)` int16.
        head_inputs: `(n, D')` float32, or None.
    """

    size: int
    image_ids: tuple[str, ...]
    images: NDArray[np.int32]
    positions: NDArray[np.int32]
    priorities: NDArray[np.uint64]
    features: NDArray[np.float32]
    m: NDArray[np.float32]
    lse: NDArray[np.float32]
    classes: NDArray[np.int16]
    head_inputs: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, image_id: str, found: Positions, *, size: int, seed: int, limit: int | None = None) -> Bank:
        """The vectors of one image that may be in the sample: of the positions that count those of least priority.

        `limit` is a priority which so many vectors of other images are known not to exceed that no greater one is
        in the sample.
        """
        places = np.flatnonzero(found.classes != NO_CLASS)
        priorities = priorities_of(seed, image_id, places)
        order = np.argsort(priorities, kind="stable")[:size]
        if limit is not None:
            order = order[: np.searchsorted(priorities[order], np.uint64(limit), side="right")]
        places = places[order]
        return cls(
            size=size,
            image_ids=(image_id,) if len(places) else (),
            images=np.zeros(len(places), np.int32),
            positions=places.astype(np.int32),
            priorities=priorities[order],
            features=_rows(found.features, places),
            m=found.m[places],
            lse=found.lse[places],
            classes=found.classes[places],
            head_inputs=None if found.head_inputs is None else _rows(found.head_inputs, places),
        )

    @classmethod
    def merged(cls, banks: Sequence[Bank]) -> Bank:
        """The sample of the images of all banks, which are of one size and of different images.

        Raises:
            ValueError: sizes or images do not fit, or there is no bank.
        """
        if len({bank.size for bank in banks}) != 1:
            raise ValueError(f"banks of one size add up, not of {sorted({bank.size for bank in banks})}")
        names = sorted(name for bank in banks for name in bank.image_ids)
        if len(names) > len(set(names)):
            raise ValueError("banks of different images add up; an image is in two")
        place = {name: index for index, name in enumerate(names)}
        images = np.concatenate([_renamed(bank, place) for bank in banks])
        positions = np.concatenate([bank.positions for bank in banks])
        priorities = np.concatenate([bank.priorities for bank in banks])
        order = np.lexsort((positions, images, priorities))[: banks[0].size]
        kept, images = np.unique(images[order], return_inverse=True)
        return cls(
            size=banks[0].size,
            image_ids=tuple(names[index] for index in kept),
            images=images.astype(np.int32),
            positions=positions[order],
            priorities=priorities[order],
            features=_taken([bank.features for bank in banks], order),
            m=_taken([bank.m for bank in banks], order),
            lse=_taken([bank.lse for bank in banks], order),
            classes=_taken([bank.classes for bank in banks], order),
            head_inputs=_taken_or_none([bank.head_inputs for bank in banks], order),
        )

    def __add__(self, other: Bank) -> Bank:
        return Bank.merged((self, other))

    def __len__(self) -> int:
        return len(self.priorities)

    @property
    def limit(self) -> int | None:
        """The priority that no further vector may exceed; None as long as there is room."""
        return int(self.priorities[-1]) if self.size and len(self) == self.size else None

    def of_image(self, image_id: str) -> NDArray[np.bool_]:
        """Which vectors are of an image, `(n,)`."""
        try:
            return np.equal(self.images, self.image_ids.index(image_id))
        except ValueError:
            return np.zeros(len(self), np.bool_)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name, for a file; `size` and `image_ids` go beside them."""
        arrays = {name: getattr(self, name) for name in _COLUMNS}
        return {name: values for name, values in arrays.items() if values is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, size: int, image_ids: Sequence[str]) -> Bank:
        """From what `to_arrays` gave."""
        return cls(size, tuple(image_ids), **{name: arrays[name] for name in _COLUMNS if name in arrays})


_COLUMNS = ("images", "positions", "priorities", "features", "m", "lse", "classes", "head_inputs")


def _rows(values: Any, places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows of a tensor on any device, as an array."""
    import torch

    rows: NDArray[np.float32] = values[torch.from_numpy(places).to(values.device)].cpu().numpy()
    return rows


def _renamed(bank: Bank, place: Mapping[str, int]) -> NDArray[np.int64]:
    places = np.array([place[name] for name in bank.image_ids], np.int64)
    return places[bank.images] if len(bank) else np.zeros(0, np.int64)


def _taken(parts: Sequence[NDArray[Any]], order: NDArray[np.intp]) -> NDArray[Any]:
    """Rows of all parts, one under the other, in an order; without a copy of all of them."""
    ends = np.cumsum([len(part) for part in parts])
    taken = np.empty((len(order), *parts[0].shape[1:]), parts[0].dtype)
    of_part = np.searchsorted(ends, order, side="right")
    for index, part in enumerate(parts):
        chosen = of_part == index
        taken[chosen] = part[order[chosen] - (ends[index] - len(part))]
    return taken


def _taken_or_none(parts: Sequence[NDArray[Any] | None], order: NDArray[np.intp]) -> NDArray[Any] | None:
    there = [part for part in parts if part is not None]
    return _taken(there, order) if len(there) == len(parts) else None

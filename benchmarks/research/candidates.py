"""Every candidate on a set: `python -m benchmarks.research.candidates SET NETWORK`.

It needs what `benchmarks.research.features` keeps of that set and network.

Prints AP and FPR95 with 95 % intervals, and writes them to OUT/SET.NETWORK.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.research.measures import Measured, measure
from benchmarks.research.neighbours import Searched, search
from oodray.scores.edge_filters import cell_means, guided_filter, joint_bilateral_upsampling
from oodray.scores.fitted.novelty import median_and_range
from oodray.scores.pooled import region_means

Maps = list[NDArray[np.float32]]


class Kept:
    """What `benchmarks.research.features` kept of a set, and what follows from it.

    Args:
        path: of the file.
        bank: vectors of the bank.
        gap: images before and after one that it is not compared with.
        images: which of them; None for all.
        kinds: leave out, with an image, those whose number has the same remainder by it: in the `pasted` sets those
            with an object of the same kind. 0 for none.
    """

    def __init__(
        self, path: Path, bank: int, gap: int = 0, images: NDArray[np.intp] | None = None, kinds: int = 0
    ) -> None:
        of = np.load(path)
        self._of = {name: of[name] if images is None else of[name][images] for name in of.files}
        self._bank, self._gap = bank, gap
        numbers = np.arange(len(of["label"])) if images is None else images
        self._groups = numbers % kinds if kinds else None
        self.size = self._of["label"].shape[1:]
        self.labels = [label[::2, ::2] for label in self._of["label"]]
        self.images = self._of["image"]

    def at_size(self, maps: NDArray[np.floating]) -> Maps:
        """Maps `(images, h, w)` at the size of the image."""
        return [self._resized(torch.from_numpy(of.astype(np.float32))[None])[0].numpy() for of in maps]

    def _resized(self, planes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(planes[None], self.size, mode="bilinear")[0]

    @cached_property
    def logits(self) -> Iterator[torch.Tensor]:
        """Of each image, at its size."""
        return (self._resized(torch.from_numpy(of.astype(np.float32))) for of in self._of["logits"])

    @cached_property
    def of_logits(self) -> dict[str, Maps]:
        """Scores of logits, at the size of the image."""
        found: dict[str, Maps] = {name: [] for name in ("max-logit", "energy", "entropy", "msp")}
        self.classes: Maps = []
        for logits in self.logits:
            log_p = logits.log_softmax(0)
            found["max-logit"].append(-logits.amax(0).numpy())
            found["energy"].append(-logits.logsumexp(0).numpy())
            found["entropy"].append(-(log_p.exp() * log_p).sum(0).numpy())
            found["msp"].append(1 - log_p.amax(0).exp().numpy())
            self.classes.append(logits.argmax(0).numpy())
        return found

    def features(self, layer: str = "features") -> NDArray[np.float16]:
        """Of a layer, `(images, D, h, w)`."""
        found: NDArray[np.float16] = self._of[layer]
        return found

    @cached_property
    def unsure(self) -> Maps:
        """z(-m)."""
        return z(self.of_logits["max-logit"])

    @cached_property
    def searched(self) -> Searched:
        """The nearest features of other images."""
        return self.search()

    @cached_property
    def distance(self) -> Maps:
        """z(d)."""
        return z(self.at_size(self.searched.mean()))

    @cached_property
    def directions(self) -> Maps:
        """z(d) of features brought to length 1."""
        return z(self.at_size(self.search(normalize=True).mean()))

    @cached_property
    def novelty(self) -> Maps:
        """z(-m) + z(d)."""
        return added(self.unsure, self.distance)

    @cached_property
    def mutual(self) -> Maps:
        """z of mutual proximity."""
        return z(self.at_size(mutual_proximity(self.searched)))

    def layers(self) -> list[str]:
        """Other maps of the backbone, of no more positions than a search takes in a minute."""
        stages = sorted(name for name in self._of if name.startswith("stage"))
        own = self.features().shape[1:]
        return [name for name in stages if self._of[name].shape[1:] != own and self._of[name].shape[2] <= 64]

    @cached_property
    def grid_classes(self) -> NDArray[np.int64]:
        """Predicted class of each position of the grid."""
        size = self.features().shape[2:]
        found = [
            torch.nn.functional.interpolate(torch.from_numpy(of.astype(np.float32))[None], size, mode="bilinear")[0]
            for of in self._of["logits"]
        ]
        return np.stack([logits.argmax(0).numpy() for logits in found])

    def search(self, layer: str = "features", gap: int | None = None, **options: Any) -> Searched:
        """The nearest features of other images; see `benchmarks.research.neighbours.search`."""
        return search(
            self.features(layer), self._bank, self._gap if gap is None else gap, groups=self._groups, **options
        )


def z(maps: Maps | NDArray[np.floating]) -> Maps:
    """Of all pixels together: (score - median) / half the distance of the quantiles at 16 and at 84 %."""
    middle, spread = median_and_range(np.concatenate([of.ravel()[::7] for of in maps]))
    return [(of - middle) / (spread or 1) for of in maps]


def ranks(maps: Maps) -> Maps:
    """The share of pixels with a smaller score."""
    steps = np.unique(np.quantile(np.concatenate([of.ravel()[::7] for of in maps]), np.linspace(0, 1, 2001)))
    return [np.interp(of, steps, np.linspace(0, 1, len(steps))).astype(np.float32) for of in maps]


def added(*parts: Maps) -> Maps:
    """The sum of maps, image by image."""
    return [sum(of[1:], start=of[0]) for of in zip(*parts, strict=True)]


def by_class(kept: Kept, maps: Maps) -> Maps:
    """z among the pixels of one predicted class, the statistics being the set's own."""
    values, classes = (
        np.concatenate([of.ravel()[::7] for of in maps]),
        np.concatenate([of.ravel()[::7] for of in kept.classes]),
    )
    of_all = median_and_range(values)
    table = np.array(
        [
            median_and_range(values[classes == one]) if (classes == one).sum() > 50 else of_all
            for one in range(int(classes.max()) + 1)
        ]
    )
    found = []
    for of, own in zip(maps, kept.classes, strict=True):
        middle, spread = table[np.minimum(own, len(table) - 1)].transpose(2, 0, 1)
        found.append(((of - middle) / np.where(spread > 0, spread, 1)).astype(np.float32))
    return found


def csls(searched: Searched, *, ratio: bool = False) -> NDArray[np.float32]:
    """The mean distance to the 3 nearest, minus, or over, their own mean distance to their nearest."""
    scale = searched.local_scale()[searched.places[..., :3]].mean(-1)
    return searched.mean() / (scale + 1e-6) if ratio else searched.mean() - scale


def of_neighbours(searched: Searched, seed: int = 0) -> NDArray[np.float32]:
    """The distance to each of the 3 nearest, by mean and deviation of that one's own distances to the bank."""
    rng = np.random.default_rng(seed)
    some = torch.from_numpy(searched.bank[rng.permutation(len(searched.bank))[:500]])
    to_some = torch.cdist(torch.from_numpy(searched.bank), some)
    mean, deviation = to_some.mean(1).numpy(), to_some.std(1).numpy()
    near = searched.places[..., :3]
    return np.asarray((searched.distances[..., :3] - mean[near]) / deviation[near])


def mutual_proximity(searched: Searched) -> NDArray[np.float32]:
    """The logarithm of the share of the bank that is nearer to the nearest vectors than the query is.

    Distances of a vector to the bank are taken as normal (Schnitzer et al., JMLR 2012; of both sides, the neighbours').
    """
    nearer = torch.distributions.Normal(0.0, 1.0).cdf(torch.from_numpy(of_neighbours(searched)))
    return np.log(nearer.mean(-1).numpy() + 1e-12).astype(np.float32)


def clusters(kept: Kept, k: int = 8) -> list[NDArray[np.uint8]]:
    """K-Means of each image, at the size of the image."""
    from oodray.method.kmeans import cluster_features
    from oodray.method.rule import upsample_nearest

    found = cluster_features(
        [torch.from_numpy(of.astype(np.float32)) for of in kept.features()],
        (k,),
        seeds=[[index] for index in range(len(kept.features()))],
        normalize=False,
        backend="torch",
        n_init=2,
    )
    return [upsample_nearest(ids[0], *kept.size) for ids in found]


FINAL = (
    "max-logit",
    "energy",
    "max-logit, guided:8",
    "distance",
    "novelty",
    "novelty, half distance",
    "novelty, guided:8",
)
"""What test sets report, with what it is compared with."""

Candidates = Iterator[tuple[str, Callable[[], Maps]]]


def candidates(kept: Kept, *, further: bool = True) -> Candidates:
    """Every candidate by name, computed when it is called; without the further ones those of a single search alone."""
    for name, maps in kept.of_logits.items():
        yield name, lambda maps=maps: maps  # type: ignore[misc]
    yield "max-logit, guided:8", lambda: guided(kept, kept.of_logits["max-logit"], 8)
    yield "max-logit, bilateral", lambda: bilateral(kept, kept.of_logits["max-logit"])
    yield from of_sums(kept)
    yield from of_scaled_distances(kept)
    yield from of_filters(kept)
    if further:
        yield from of_other_searches(kept)
        yield from of_regions(kept)


def of_sums(kept: Kept) -> Candidates:
    """Ways to put both parts together."""
    logits, unsure, distance, novelty = kept.of_logits, kept.unsure, kept.distance, kept.novelty
    yield "distance", lambda: distance
    yield "novelty", lambda: novelty
    yield "novelty, ranks", lambda: added(ranks(logits["max-logit"]), ranks(distance))
    yield "novelty, larger z", lambda: [np.maximum(*of) for of in zip(unsure, distance, strict=True)]
    yield "novelty, half distance", lambda: [a + 0.5 * b for a, b in zip(unsure, distance, strict=True)]
    yield "novelty, double distance", lambda: [a + 2 * b for a, b in zip(unsure, distance, strict=True)]
    yield "novelty, energy", lambda: added(z(logits["energy"]), distance)
    of_class = by_class(kept, logits["max-logit"])
    yield "m by class", lambda: of_class
    yield "novelty, m by class", lambda: added(of_class, distance)
    yield "novelty, both by class", lambda: added(of_class, by_class(kept, distance))
    yield "novelty and m by class", lambda: added(novelty, of_class)
    yield "m by class, mutual proximity", lambda: added(of_class, kept.mutual)
    yield "novelty and mutual", lambda: added(novelty, kept.mutual)
    yield "novelty, m by class, mutual", lambda: added(novelty, of_class, kept.mutual)
    yield "novelty, energy, mutual", lambda: added(z(logits["energy"]), kept.mutual)


def of_scaled_distances(kept: Kept) -> Candidates:
    """Other distances from the same search."""
    searched, unsure = kept.searched, kept.unsure
    yield "novelty, k = 1", lambda: added(unsure, z(kept.at_size(searched.mean(1))))
    yield "novelty, k = 10", lambda: added(unsure, z(kept.at_size(searched.mean(10))))
    yield "novelty, median of 9", lambda: added(unsure, z(kept.at_size(searched.distances[..., 4])))
    yield "novelty, CSLS", lambda: added(unsure, z(kept.at_size(csls(searched))))
    yield "novelty, local ratio", lambda: added(unsure, z(kept.at_size(csls(searched, ratio=True))))
    standardized = z(kept.at_size(of_neighbours(searched).mean(-1)))
    yield "novelty, neighbours' z", lambda: added(unsure, standardized)
    yield "mutual proximity", lambda: kept.mutual
    yield "novelty, mutual proximity", lambda: added(unsure, kept.mutual)


def of_filters(kept: Kept) -> Candidates:
    """Refinement along edges."""
    for radius in (4, 8, 16):
        yield f"novelty, guided:{radius}", lambda radius=radius: guided(kept, kept.novelty, radius)  # type: ignore[misc]
    yield "novelty, bilateral", lambda: bilateral(kept, kept.novelty)
    both = added(kept.unsure, kept.mutual)
    yield "novelty, mutual, guided:8", lambda: guided(kept, both, 8)
    yield "novelty, mutual, bilateral", lambda: bilateral(kept, both)


def of_other_searches(kept: Kept) -> Candidates:
    """Vectors of the same class alone, other layers, and gaps."""
    unsure = kept.unsure
    yield "novelty, directions", lambda: added(unsure, kept.directions)
    yield "novelty, directions, half", lambda: [a + 0.5 * b for a, b in zip(unsure, kept.directions, strict=True)]
    yield "novelty, own class", lambda: added(unsure, z(kept.at_size(kept.search(classes=kept.grid_classes).mean())))
    for layer in kept.layers():
        distance = cache(lambda layer=layer: z(kept.at_size(kept.search(layer).mean())))
        yield f"novelty, {layer}", lambda distance=distance: added(unsure, distance())  # type: ignore[misc]
        yield f"novelty and {layer}", lambda distance=distance: added(kept.novelty, distance())  # type: ignore[misc]
    for gap in (2, 10):
        yield f"novelty, gap {gap}", lambda gap=gap: added(unsure, z(kept.at_size(kept.search(gap=gap).mean())))  # type: ignore[misc]


def of_regions(kept: Kept) -> Candidates:
    """Means over K-Means clusters, and the paper's rule with novelty in the place of the confidence."""
    regions, novelty = clusters(kept), kept.novelty
    yield "max-logit, mean of K-Means", lambda: [region_means(*of) for of in zip(kept.unsure, regions, strict=True)]
    yield "novelty, mean of K-Means", lambda: [region_means(*of) for of in zip(novelty, regions, strict=True)]
    limit = np.quantile(np.concatenate([of.ravel()[::7] for of in novelty]), 0.95)
    above = [(of > limit).astype(np.float64) for of in novelty]
    yield "rule on novelty", lambda: [region_means(*of) for of in zip(above, regions, strict=True)]


def bilateral(kept: Kept, maps: Maps) -> Maps:
    """Maps after joint bilateral upsampling of their means over cells."""
    return [
        joint_bilateral_upsampling(cell_means(of.astype(np.float32)), image)
        for of, image in zip(maps, kept.images, strict=True)
    ]


def guided(kept: Kept, maps: Maps, radius: int) -> Maps:
    """Maps after the guided filter."""
    return [guided_filter(of.astype(np.float32), image, radius) for of, image in zip(maps, kept.images, strict=True)]


def evaluated(kept: Kept, maps: Maps) -> Measured:
    """Measured at every other pixel of every other row."""
    return measure([of[::2, ::2] for of in maps], kept.labels)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("set")
    parser.add_argument("network")
    parser.add_argument("--bank", type=int, default=10_000)
    parser.add_argument("--gap", type=int, default=0)
    parser.add_argument("--kinds", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="take one image of so many")
    parser.add_argument("--final", action="store_true", help="the final candidates and their controls alone")
    parser.add_argument("--only", help="candidates whose name holds this text alone")
    parser.add_argument("--single", action="store_true", help="those of a single search alone")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/novelty"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.out / f"{arguments.set}.{arguments.network}.npz"
    images = None if arguments.every == 1 else np.arange(0, len(np.load(path)["label"]), arguments.every)
    kept = Kept(path, arguments.bank, arguments.gap, images, arguments.kinds)
    target = path.with_suffix(f".gap{arguments.gap}.kinds{arguments.kinds}.json")
    found = json.loads(target.read_text()) if target.exists() else {}
    every = candidates(kept, further=not arguments.single and not arguments.final)
    for name, make in every:
        if (arguments.final and name not in FINAL) or (arguments.only and arguments.only not in name):
            continue
        start = time.process_time()  # what candidates share is computed before
        measured = evaluated(kept, make())
        found[name] = asdict(measured)
        print(f"{name:28} {measured}  {time.process_time() - start:.1f} s", flush=True)
        target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

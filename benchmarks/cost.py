"""Hours and machines for a million images, from parts that were measured: `python -m benchmarks.cost`.

No cluster was timed for this. Each part was measured on its own; the constants below say where. GPUs wait for nothing
but the driver, and nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGES = 1_000_000
GPUS = (1, 8, 64)

HEAD_BESIDE_BACKBONE = 1.83
"""Backbone and head together, over the backbone alone: InternImage-L with UPerNet on two CPU cores, 9.5 s and 5.2 s."""

SECONDS_PER_MEGAPIXEL = 0.24
"""On one CPU core: decoding (0.06 s) and rule, mask, tallies, PNG and file (0.18 s), medians of the RoadAnomaly run."""

DRIVER_SECONDS, IMAGES_A_BLOCK = 0.025, 8
"""CPU of Ray Data's one driver for a block, by `python -m benchmarks.driver` on a core of two; a block is a unit."""


@dataclass(frozen=True)
class Network:
    """A backbone as `make bench-gpu` timed it on one H100, and the K-Means behind it.

    Attributes:
        name: network, size of the images, type of its products.
        images_per_second: of the backbone alone.
        megapixels: of an image.
        clustering_seconds: of the torch K-Means, K = 5, n_init = 4, 8,192 points.
    """

    name: str
    images_per_second: float
    megapixels: float
    clustering_seconds: float = 0.007

    @property
    def gpu_seconds(self) -> float:
        """Of one image."""
        return HEAD_BESIDE_BACKBONE / self.images_per_second + self.clustering_seconds

    @property
    def cpu_seconds(self) -> float:
        """Of one image, beside the GPU."""
        return SECONDS_PER_MEGAPIXEL * self.megapixels

    @property
    def cores(self) -> float:
        """CPU cores that keep one GPU busy."""
        return self.cpu_seconds / self.gpu_seconds


NETWORKS = (
    Network("InternImage-L, 2048x1024, float32", 10.2, 2.1),
    Network("InternImage-L, 2048x1024, bfloat16", 19.8, 2.1),
    Network("InternImage-B, 2048x1024, float32", 21.2, 2.1),
    Network("InternImage-B, 2048x1024, bfloat16", 38.9, 2.1),
)


def hours(network: Network, gpus: int) -> float:
    """For a million images on so many GPUs, as long as the driver lets none of them wait.

    >>> round(hours(Network("two images a second", 2 * HEAD_BESIDE_BACKBONE, 1.0, 0.0), 8), 1)
    17.4
    """
    return IMAGES * max(network.gpu_seconds / gpus, DRIVER_SECONDS / IMAGES_A_BLOCK) / 3600


def gpus_of_a_driver(network: Network) -> int:
    """GPUs that one driver keeps busy.

    >>> gpus_of_a_driver(Network("two images a second", 2 * HEAD_BESIDE_BACKBONE, 1.0, 0.0))
    160
    """
    return int(network.gpu_seconds * IMAGES_A_BLOCK / DRIVER_SECONDS)


def main() -> None:
    """Print the table."""
    counts = " | ".join(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS)
    print(f"| network | images/s a GPU | cores a GPU | GPUs a driver | {counts} |")
    print("|---|---|---|---|" + "---|" * len(GPUS))
    for network in NETWORKS:
        cells = [network.name, f"{1 / network.gpu_seconds:.1f}", f"{network.cores:.1f}", str(gpus_of_a_driver(network))]
        cells += [f"{hours(network, gpus):,.1f} h" for gpus in GPUS]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

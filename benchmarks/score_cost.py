"""What every score costs beside its network: `python -m benchmarks.score_cost`, InternImage-L at 512x1024 on a CPU.

Weights and statistics are random, and of the size of real ones: 19 classes, a bank of 100,000 x 640. Seconds are those
of the CPU in one thread, so that other work on the machine shows little.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.network import HEIGHT, WIDTH, internimage_l
from benchmarks.timing import machine
from oodray.job.process_memory import keep_freed_memory
from oodray.job.worker import head_of
from oodray.models.segmenter import Segmentation
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.fitting import fit_scores
from oodray.scores.fitted.folder import FitFolder
from oodray.scores.fitted.key_scales import key_scale
from oodray.scores.fitted.mixture import COMPONENTS, MixtureParameters
from oodray.scores.fitted.neighbours import CdnpParameters
from oodray.scores.fitted.scores import FITTED_SCORES, scores_needing
from oodray.scores.fitted.settings import FitSettings
from oodray.scores.fitted.sums import LogitMaps, Positions, Sums
from oodray.scores.maps import pixel_maps
from oodray.scores.registry import FitChoice, pixel_scores
from oodray.scores.score import ImageFeatures, PixelScore

BANK, CLASSES = 100_000, 19
OF_LOGITS = ("max-logit", "msp", "entropy", "energy")
REPEATS = 2
MARK = "## Cost of scores"


def main() -> None:
    """Measure, print, write."""
    from benchmarks.neighbours import write_section

    torch.set_num_threads(1)
    keep_freed_memory()  # as a worker does
    text = "\n".join(report())
    print(text)
    write_section(MARK, text)


@dataclass(frozen=True)
class Costs:
    """Seconds of the CPU for one image.

    Attributes:
        network: that the network takes.
        usual: that confidence and the scores of logits alone take.
        together: that all other scores take beyond those.
        alone: the same of each by itself.
    """

    network: float
    usual: float
    together: float
    alone: dict[str, float]


def costs(segmenter: Any, rgb: NDArray[np.uint8], names: Sequence[str], fit: str) -> Costs:
    """What scores of a fit cost on an image, in one thread."""
    network, [found] = timed(lambda: segmenter.segment([rgb.copy()]))
    scores = pixel_scores((*OF_LOGITS, *names), fit=FitChoice(fit))

    def seconds(chosen: Sequence[PixelScore]) -> float:
        def compute() -> object:
            # Copies: of the same tensor neighbours are searched once.
            image = ImageFeatures(found.features.clone(), "", head_of(segmenter), found.head_input, rgb)
            return pixel_maps(found.logits, *rgb.shape[:2], chosen, image)

        return timed(compute)[0]

    usual = scores[: len(OF_LOGITS)]
    base, whole = seconds(usual), seconds(scores)
    alone = {score.name: seconds([*usual, score]) - base for score in scores[len(OF_LOGITS) :]}
    return Costs(network, base, whole - base, alone)


def report() -> list[str]:
    """The results as lines of Markdown."""
    segmenter = internimage_l("float32")
    segmenter.classes = CLASSES  # as of the files for Cityscapes, which have 150 outputs
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    [found] = segmenter.segment([rgb.copy()])
    names = tuple(name for name in FITTED_SCORES if name not in scores_needing("queries"))
    with tempfile.TemporaryDirectory() as folder:
        write_fit(Path(folder), found, names)
        cost = costs(segmenter, rgb, names, folder)
    rows = {
        "the network": cost.network,
        ", ".join(OF_LOGITS): cost.usual,
        "all fitted scores together": cost.together,
        **cost.alone,
    }
    return [
        f"InternImage-L with UPerNet at {HEIGHT}x{WIDTH}, random weights, a bank of {BANK:,} x {len(found.features)}. "
        f"Seconds of the CPU in one thread, medians of {REPEATS} in one run. Of the scores alone `knn` and `cdnp` each "
        f"search the bank, together they do so once. {machine().capitalize()}.",
        "",
        "| what | CPU seconds | of the network |",
        "|---|---|---|",
        *(f"| {what} | {taken:.2f} | {taken / cost.network:.2f} |" for what, taken in rows.items()),
    ]


def timed(way: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the CPU, once it is warm, and what it gives."""
    found = way()
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        found = way()
        taken.append(time.process_time() - start)
    return median(taken), found


def write_fit(folder: Path, found: Segmentation, names: tuple[str, ...]) -> None:
    """A fit of random statistics; what takes minutes to fit is random, too, and has the size of what is fitted."""
    features, inputs = len(found.features), 0 if found.head_input is None else len(found.head_input)
    random = np.random.default_rng(0)
    spread = torch.linspace(2, 0.05, features)
    classes = random.integers(CLASSES, size=BANK).astype(np.int16)
    lse = random.normal(9, 2, BANK).astype(np.float32)
    rows = Positions(
        features=torch.from_numpy(random.standard_normal((BANK, features), np.float32)) * spread,
        m=lse,
        lse=lse,
        classes=classes,
        head_inputs=torch.from_numpy(random.standard_normal((BANK // 10, inputs), np.float32)).repeat(10, 1),
    )
    grid = (100, BANK // 100)
    sums = Sums.of(LogitMaps(lse.reshape(grid), lse.reshape(grid), classes.reshape(grid)), rows, CLASSES)
    bank = Bank.of("known", rows, size=BANK, seed=0)
    quick = fit_scores([name for name in names if name not in ("cdnp", "gmm")], sums, bank, FitSettings())
    gaussians = COMPONENTS * CLASSES
    parameters = quick.parameters | {
        "cdnp": CdnpParameters(0.0, 20.0, 50.0),
        "gmm": MixtureParameters(
            np.zeros(features),
            np.ones(features),
            np.full(gaussians, -1.6),
            random.standard_normal((gaussians, features)),
            random.uniform(0.5, 2, (gaussians, features)),
            np.repeat(np.arange(CLASSES), COMPONENTS),
        ),
    }
    FitFolder(folder).write(
        {},
        FitSettings(),
        sums,
        bank,
        parameters,
        fitted=list(names),
        refused={},
        remarks={},
        scales={name: key_scale(name, sums, bank, parameters.get(name)).name for name in names},
    )


if __name__ == "__main__":
    main()

"""What bfloat16 does to AP and FPR95: `make bench-precision`, with RoadAnomaly in `$OODRAY_DATA`.

Products are emulated as tensor cores and AMX compute them: factors rounded to bfloat16, sums in float32, the result
rounded. So it runs on every CPU, as fast as float32. The K-Means starts from several seeds in each precision: what a
seed moves is no fault of the precision.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total_here
from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import build_manifest, images_by_unit
from oodray.job.decoder import Decoder
from oodray.job.finisher import Finisher
from oodray.job.units import DecodedImage
from oodray.job.worker import Worker
from oodray.method.rule import Rule
from oodray.method.settings import MethodSettings
from oodray.metrics.evaluation import ScoreMetrics, evaluate
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import Segmentation
from oodray.models.source import resolve_model
from oodray.results.folder import ResultsFolder

RESULTS = Path(__file__).parent / "RESULTS-PRECISION.md"
DATA = Path(os.environ.get("OODRAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
MODEL, TAU, K, OOD_RATIO = "internimage-n-camvid", 2.6171875, 5, 0.3
SEEDS = range(5)
SCORES = ("ratio", "mask-then-logit", "max-logit")
PRECISIONS = ("float32", "bfloat16, the classifier too", "bfloat16, the classifier in float32")


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        found = {precision: _measure(precision, Path(folder)) for precision in PRECISIONS}
    text = _report(found)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


class Replayed:
    """A segmenter that says again what the network said: K-Means alone is what a seed changes."""

    def __init__(self, segmentation: Segmentation) -> None:
        self.segmentation = segmentation

    def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
        """The one that it has, for the one image that it is asked for."""
        assert len(images) == 1
        return [self.segmentation]


def _measure(precision: str, folder: Path) -> list[list[ScoreMetrics]]:
    """For each seed the metrics of each score."""
    network: Any = load_segmenter(resolve_model(MODEL))
    if precision != PRECISIONS[0]:
        emulate_bfloat16(network.network, but=() if precision == PRECISIONS[1] else ("decode_head.conv_seg",))
    folders = [ResultsFolder(folder / f"{PRECISIONS.index(precision)}-{seed}") for seed in SEEDS]
    for results in folders:
        results.create()
    for decoded in _decoded():
        replayed = Replayed(*network.segment([decoded.rgb.copy()]))
        for seed, results in zip(SEEDS, folders, strict=True):
            method = _method(seed)
            Finisher(method, str(results.path))(Worker(replayed, method)([decoded]))
    rule = Rule(K, TAU, OOD_RATIO)
    return [evaluate(total_here(CountedFiles(results.parts()), rule), SCORES) for results in folders]


def emulate_bfloat16(network: nn.Module, but: tuple[str, ...] = ()) -> None:
    """Round what convolutions and linear layers multiply, and what comes out, but for some by name."""

    def round_inputs(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(map(_rounded, inputs))

    def round_output(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return _rounded(output)

    for name, module in network.named_modules():
        if name in but or not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            continue
        module.register_forward_hook(round_output)
        if not isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(round_inputs)
            for parameter in module.parameters():
                parameter.data = _rounded(parameter.data)


def _rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def _decoded() -> Iterator[DecodedImage]:
    """Each image as a unit of its own."""
    layout = get_layout("road-anomaly")
    decoder = Decoder(layout.label_codes)
    units = images_by_unit(build_manifest(layout, DATA / "RoadAnomaly_jpg")).values()
    for unit, listed in enumerate(image for images in units for image in images):
        yield decoder.decode(replace(listed, unit=unit))


def _method(seed: int) -> MethodSettings:
    return MethodSettings(
        k=K,
        ks=(K,),
        tau=TAU,
        ood_ratio=OOD_RATIO,
        seed=seed,
        normalize_features=False,
        kmeans_backend="torch",
        n_init=4,
        scores=("max-logit",),
        batch_size=1,
    )


def _report(found: dict[str, list[list[ScoreMetrics]]]) -> str:
    rows = [
        f"| {precision} | {score} | {_spread([100 * of_seed[index].ap for of_seed in seeds])} "
        f"| {_spread([100 * of_seed[index].fpr95 for of_seed in seeds])} |"
        for precision, seeds in found.items()
        for index, score in enumerate(SCORES)
    ]
    return "\n".join(
        [
            "# What bfloat16 does to the metrics",
            "",
            f"Written by `make bench-precision`: RoadAnomaly, 60 images, `{MODEL}`, K = {K}, tau = {TAU}, "
            f"T = {OOD_RATIO}. bfloat16 is emulated: factors rounded, sums in float32, results rounded. Mean and "
            f"standard deviation over {len(SEEDS)} seeds of the K-Means, in percent.",
            "",
            "| products | score | AP | FPR95 |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    main()

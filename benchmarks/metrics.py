"""Everything that counts pixels, at the sizes it is made for: `python -m benchmarks.metrics`, about half an hour.

`python -m benchmarks.metrics reducer`, for example, measures that part alone and leaves the others as they are.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import evaluators, large_evaluation, reducing, regions, sweeping
from benchmarks.large_evaluation import Measured

RESULTS = Path(__file__).parent / "RESULTS-METRICS.md"
IMAGES = (60, 217)  # 55 and 200 million pixels
REDUCED_IMAGES = (1_000, 10_000, 100_000)
PACKAGES = ("numpy", "numba", "scikit-learn", "torchmetrics", "ray", "pyarrow")


def main() -> None:
    """Measure the parts named on the command line, or all, and write each as soon as it is measured."""
    measures = {
        "evaluation": _evaluation,
        "sweep": _sweep,
        "reducer": _reducer,
        "regions": _regions,
        "evaluators": _evaluators,
    }
    for name in sys.argv[1:] or measures:
        part = f"{measures[name]()}\n\n{_conditions()}"
        print(part)
        _write(part)


def _write(part: str) -> None:
    """Replace the part with the same heading, or add it."""
    title = "# Benchmarks of metrics\n\nWritten by `make bench-metrics`."
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else title
    _, *parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    by_heading = {found.partition("\n")[0]: found.rstrip() for found in parts}
    by_heading[part.partition("\n")[0]] = part
    RESULTS.write_text("\n\n".join([title, *by_heading.values()]) + "\n", encoding="utf-8")


def _conditions() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"At a load of {os.getloadavg()[0]:.1f} in the end, on {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, {versions}."
    )


def _evaluation() -> str:
    lines = [
        "## AP and FPR95 of all pixels of a dataset",
        "",
        "float16 scores of images of 1280x720, each way in a process of its own, one run. Memory is the peak of the "
        "process; scikit-learn's alone, imported, is 0.1 GB. The difference is the larger one of AP and FPR95, to the "
        "sort in numpy, which rounds nothing.",
        "",
        "| pixels | way | time | tallies are | peak memory | difference |",
        "|---|---|---|---|---|---|",
    ]
    for images in IMAGES:
        measured = large_evaluation.run(images)
        by_way = {found.way: found for found in measured}
        ours, exact = by_way["tallies"], by_way.get("numpy sort", by_way["tallies"])
        lines += [_row(found, ours, exact) for found in measured]
    return "\n".join(lines)


def _row(found: Measured, ours: Measured, exact: Measured) -> str:
    difference = max(abs(found.ap - exact.ap), abs(found.fpr95 - exact.fpr95))
    ratio = "" if found is ours else f"**{found.seconds / ours.seconds:.1f}x** as fast"
    return (
        f"| {found.pixels / 1e6:.0f} M | {found.way} | {found.seconds:.2f} s | {ratio} | {found.gigabytes:.2f} GB "
        f"| {difference:.1e} |"
    )


def _sweep() -> str:
    swept = sweeping.run()
    brute = swept.brute_seconds * swept.settings
    return "\n".join(
        [
            f"## A sweep of {swept.settings:,} settings",
            "",
            f"{len(sweeping.KS)} K x {len(sweeping.TAUS)} tau x {len(sweeping.OOD_RATIOS)} T on {sweeping.IMAGES} "
            "images of 1280x720. Brute force: the same settings pixel by pixel with numpy and scikit-learn, "
            f"{len(sweeping.SAMPLED)} of them measured.",
            "",
            "| way | time | brute force takes |",
            "|---|---|---|",
            f"| sweep | {swept.seconds:.2f} s | **{brute / swept.seconds:,.0f}x** |",
            f"| sweep with mask-then-logit | {swept.seconds_with_mask_then_logit:.2f} s "
            f"| **{brute / swept.seconds_with_mask_then_logit:,.0f}x** |",
            f"| brute force, one setting | {swept.brute_seconds:.1f} s | |",
            "",
            f"The largest difference between the sampled settings and the sweep is {swept.difference:.1e}.",
        ]
    )


def _regions() -> str:
    found = regions.run()
    return "\n".join(
        [
            "## Connected regions",
            "",
            f"sIoU and PPV in {regions.IMAGES} images of 1280x720 with {found.regions:.0f} regions each, CPU seconds. "
            f"Plainly: `scipy.ndimage.label`, then one region after the other, {regions.PLAIN_IMAGES} images of them.",
            "",
            "| way | an image | 60 images | |",
            "|---|---|---|---|",
            f"| find_components | {found.ours:.3f} s | {60 * found.ours:.1f} s | |",
            f"| plainly | {found.plain:.2f} s | {60 * found.plain:.0f} s "
            f"| **{found.plain / found.ours:.0f}x** as long |",
            f"| instance AP | {found.instances:.3f} s | {60 * found.instances:.1f} s | |",
            "",
            f"The largest difference of an sIoU is {found.difference:.1e}.",
        ]
    )


def _evaluators() -> str:
    lines = [
        "## Importing score maps, and seven conventions of them",
        "",
        f"{evaluators.IMAGES} maps of 1280x720, float32 in `.npy`, and labels in PNG, from reading to AP and FPR95: "
        "CPU seconds of the user and of the system, each way in a process of its own, one run. oodray imports the maps "
        f"and evaluates them under the default convention and as {', '.join(evaluators.LIKE)}. The others measure "
        "under their own convention alone; `smiyc` is SegmentMeIfYouCan's pixel metric, restated in numpy.",
        "",
        "| maps | way | CPU | oodray's share of it | peak memory | AP | FPR95 |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as data:
        found = evaluators.run(Path(data))
    ours = {measured.kind: measured.cpu for measured in found if measured.way == "oodray"}
    lines += [
        f"| {one.kind} | {one.way} | {one.cpu:.1f} s | {ours[one.kind] / one.cpu:.2f} | {one.gigabytes:.2f} GB "
        f"| {one.ap:.4f} | {one.fpr95:.4f} |"
        for one in found
    ]
    return "\n".join(lines)


def _reducer() -> str:
    lines = [
        "## The reducer",
        "",
        "Rows of images of 1280x720 with K = 5 and four pixel scores, masks left out, in closed waves without kept "
        "counts; by threads of one process, and by Ray on this machine. Memory is the peak of the largest worker, and "
        "what the driver's grew by.",
        "",
        "| images | on disk | way | time | images/s | worker | driver |",
        "|---|---|---|---|---|---|---|",
    ]
    for images in REDUCED_IMAGES:
        lines += [
            f"| {images:,} | {found.megabytes / 1e3:.2f} GB | {found.way} | {found.seconds:.1f} s "
            f"| {images / found.seconds:.0f} | {found.worker_gigabytes:.2f} GB | {found.driver_gigabytes:.2f} GB |"
            for found in reducing.run(images)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

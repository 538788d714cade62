"""The page and the plot of `benchmarks.scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.scale import OPTIONS, STEADY

HERE = Path(__file__).parent
PAGE, PLOT = HERE / "RESULTS-SCALE.md", HERE / "scale.svg"

MEASURED, REST = "<!-- measured -->", "<!-- the rest is written by hand -->"
"""Between the two lies what `write_page` writes; what comes after the second stays."""


def write_page(story: dict[str, Any]) -> None:
    """Write RESULTS-SCALE.md, what was written by hand apart, and its plot."""
    _plot(story)
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else f"{REST}\n"
    PAGE.write_text(f"# Scale\n\n{MEASURED}\n{_measured(story)}\n{REST}{before.partition(REST)[2]}", encoding="utf-8")


def steady(story: dict[str, Any]) -> tuple[float, float, float, float]:
    """Of the steady part: images a second, ms of driver CPU and of Ray's own processes an image, and the mean load."""
    low, high = (share * story["images"] for share in STEADY)
    looks = [look for look in _of_first_start(story) if low <= look["images"] <= high]
    first, last = looks[0], looks[-1]
    images = last["images"] - first["images"]
    return (
        images / (last["seconds"] - first["seconds"]),
        1000 * (last["driver_cpu"] - first["driver_cpu"]) / images,
        1000 * (last["ray_cpu"] - first["ray_cpu"]) / images,
        sum(look["load"] for look in looks) / len(looks),
    )


def _of_first_start(story: dict[str, Any]) -> list[dict[str, Any]]:
    return [look for look in story["looks"] if look["images"] <= story["killed_at"]]


def _measured(story: dict[str, Any]) -> str:
    rate, driver, ray, load = steady(story)
    looks = story["looks"]
    options = " ".join(f"--{name} {value}" for name, value in OPTIONS.items())
    start = next(look["seconds"] for look in looks if look["images"])
    at = [look for look in _of_first_start(story) if look["images"] > STEADY[0] * story["images"]]
    rows = [
        ("images a second, steady", f"{rate:.0f}"),
        ("driver: CPU an image, closing waves included", f"{driver:.2f} ms (goal: at most 0.7)"),
        ("Ray's own processes: CPU an image", f"{ray:.2f} ms"),
        ("driver: memory of its own, at 10 % and before the kill", _range(at, "driver")),
        ("two workers: the same", _range(at, "workers")),
        ("Ray's own processes: the same", _range(at, "ray")),
        ("whole run, both starts, evaluation", f"{story['run_seconds'] / 60:.1f} min"),
        ("from the command to the first images", f"{start:.0f} s"),
        ("the same after the kill, of which the images seen before are none", f"{story['resumed_seconds']:.0f} s"),
        ("most files in results/", f"{max(look['files'] for look in looks):,}"),
        ("files at the end", f"{story['files']}, {story['bytes'] / 1e6:.1f} MB"),
        ("`oodray status`", f"{story['status_seconds']:.1f} s"),
        (
            "`oodray evaluate`, counts of waves kept",
            f"{story['evaluate_seconds']:.1f} s, {story['evaluate_megabytes']:.0f} MB",
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""
`python -m benchmarks.scale {story["images"]}`: {story["images"]:,} procedural images of 64x64 pixels in tar
shards, without labels, killed at 70 % ({story["killed_at"]:,} images) and started again by the same command:

    oodray run {options}

{story["machine"]}. The load was {load:.0f} on these cores. Where it is more than the three or
four of the run itself, images a second and all times are what others left over; CPU times and memory say more.

| | |
|---|---|
{table}

![images, memory and load over time](scale.svg)
"""


def _range(looks: list[dict[str, Any]], name: str) -> str:
    return f"{looks[0][name]:.0f} MB, {looks[-1][name]:.0f} MB"


def _plot(story: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    looks = story["looks"]
    minutes = [look["seconds"] / 60 for look in looks]
    killed = next(m for m, look in zip(minutes, looks, strict=True) if look["images"] >= story["killed_at"])
    figure, axes = plt.subplots(4, 1, figsize=(8, 9), sharex=True, layout="constrained")
    axes[0].plot(minutes, [look["images"] / 1000 for look in looks])
    axes[0].set_ylabel("thousand images")
    window = 12
    for after, before in zip(range(window, len(looks)), range(len(looks) - window), strict=True):
        spent = looks[after]["seconds"] - looks[before]["seconds"]
        axes[1].plot(minutes[after], (looks[after]["images"] - looks[before]["images"]) / spent, ".", color="tab:blue")
    axes[1].set_ylabel("images a second,\nover a minute")
    for name, label in (("driver", "driver"), ("workers", "2 workers"), ("ray", "Ray's own processes")):
        axes[2].plot(minutes, [look[name] for look in looks], label=label)
    axes[2].set_ylabel("MB of its own")
    axes[2].legend(loc="center right")
    axes[3].plot(minutes, [look["files"] for look in looks], label="files in results/")
    axes[3].plot(minutes, [100 * look["load"] for look in looks], "--", label="load of the machine, times 100")
    axes[3].legend(loc="upper right")
    axes[3].set_xlabel("minutes, without the pause between kill and second start")
    for axis in axes:
        axis.axvline(killed, color="black", linewidth=0.8, linestyle=":")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(PLOT, metadata={"Date": None})

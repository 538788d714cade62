"""Every score on real networks and images: `python -m benchmarks.score_tables DATA WORK`, hours on two cores.

DATA holds `RoadAnomaly_jpg/`, `camvid/` and `cgnet-camvid/`; fits and runs go to WORK, and are continued there. Nothing
is chosen on the images that are measured: statistics and tau are of frames of CamVid. Prints the tables of
docs/results.md.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.score_cost import Costs, costs

OF_LOGITS = ("ratio", "mask-then-logit", "max-logit", "msp", "entropy", "energy", "gen")
BY_NAME = ("suplid",)
"""Fitted where they are asked for."""

HERE = ("--executor", "local", "--threads", "1")
RESAMPLES = 1000


@dataclass(frozen=True)
class Table:
    """A network on a dataset.

    Attributes:
        title: of the table.
        name: of its folders.
        model: `--model` and `--checkpoint`.
        known: the split of CamVid that statistics are of, and every how many of its frames.
        classes: of CamVid that the network knows, the first ones.
        tau: of frames that it was not trained on; "auto" for those of the fit.
        dataset: `--dataset` and `--root`.
    """

    title: str
    name: str
    model: tuple[str, ...]
    known: tuple[str, int]
    classes: int
    tau: str
    dataset: tuple[str, ...]


def tables(data: Path) -> tuple[Table, ...]:
    """The three of docs/results.md."""
    road_anomaly = ("--dataset", "road-anomaly", "--root", str(data / "RoadAnomaly_jpg"))
    held_out = ("--dataset", "camvid-held-out", "--root", str(data / "camvid"))
    cgnet = data / "cgnet-camvid"
    of_cgnet = ("--model", str(cgnet / "cgnet_camvid.py"), "--checkpoint", str(cgnet / "cgnet_camvid.pth"))
    ours = ("--model", "internimage-n-camvid")
    blind = ("--model", "internimage-n-camvid-held-out")
    return (
        Table("RoadAnomaly, internimage-n-camvid", "ra-internimage", ours, ("train", 1), 11, "2.6171875", road_anomaly),
        Table("CamVid, held-out classes", "ho-internimage", blind, ("train", 1), 8, "2.943359375", held_out),
        Table("RoadAnomaly, CGNet", "ra-cgnet", of_cgnet, ("test", 2), 11, "auto", road_anomaly),
    )


def make_list(table: Table, camvid: Path, folder: Path) -> Path:
    """A list of the frames that statistics are of; pixels of classes that the network does not know are ignored."""
    split, step = table.known
    target = folder / f"{table.name}.csv"
    labels = folder / f"{table.name}-labels"
    labels.mkdir(parents=True, exist_ok=True)
    rows = []
    for frame in sorted((camvid / split).iterdir())[::step]:
        [codes] = (camvid / f"{split}annot").glob(f"{frame.stem}.*")
        known = np.asarray(Image.open(codes)) < table.classes
        label = labels / f"{frame.stem}.png"
        Image.fromarray(np.where(known, 0, 255).astype(np.uint8)).save(label)
        rows.append((frame, label, frame.stem))
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "id"), *rows])
    return target


def measure(table: Table, data: Path, work: Path, scores: Sequence[str]) -> Path:
    """Fit, run and evaluate; what is done already is not done again."""
    fit, out = work / f"{table.name}-fit", work / f"{table.name}-run"
    frames = make_list(table, data / "camvid", work / "lists")
    of_list = ("--dataset", "list", "--root", str(frames), "--allow-outside-root")
    fit_options = (*of_list, *table.model, "--out", str(fit), *HERE)
    oodray("fit", *fit_options)
    oodray("fit", *fit_options, "--scores", ",".join(scores))
    held = json.loads((fit / "fit.json").read_text(encoding="utf-8"))["fitted"]
    asked = ",".join((*OF_LOGITS, *held))
    of_fit = ("--fit", str(fit), "--scores", asked, "--tau", table.tau)
    oodray("run", *table.dataset, *table.model, *of_fit, "--out", str(out), *HERE)
    oodray("evaluate", str(out), "--bootstrap", str(RESAMPLES))
    return out


def oodray(*command: str) -> None:
    """A command of oodray; its output is shown."""
    print("oodray", *command, flush=True)
    subprocess.run([sys.executable, "-m", "oodray", *command], check=True)


def measured_costs(table: Table, fit: Path, names: Sequence[str]) -> Costs:
    """What each score costs on the first image of the dataset, in seconds of the CPU."""
    import oodray
    from oodray.datasets.images import decode_image
    from oodray.results.folder import ResultsFolder
    from oodray.results.reading import read_rows

    torch.set_num_threads(1)
    out = fit.parent / f"{table.name}-run"
    first = read_rows(ResultsFolder(out).parts()).column("image_uri")[0].as_py()
    options = dict(zip(table.model[::2], table.model[1::2], strict=True))
    network = oodray.load(options["--model"], checkpoint=options.get("--checkpoint"))
    return costs(network, decode_image(Path(first).read_bytes()), names, str(fit))


def shown(table: Table, out: Path) -> Iterable[str]:
    """The table as lines of Markdown, in the order of the scores."""
    import pandas as pd

    found = pd.read_parquet(out / "metrics.parquet")
    fit = out.parent / f"{table.name}-fit"
    held = json.loads((fit / "fit.json").read_text(encoding="utf-8"))["fitted"]
    cost = measured_costs(table, fit, held)
    yield f"**{table.title}.** The network takes {cost.network:.1f} s of the CPU for an image, scores of logits "
    yield f"{cost.usual:.1f} s, all fitted ones together {cost.together:.1f} s; beside each score what it takes alone."
    yield ""
    yield "| score | AP % | 95 % interval | FPR95 % | 95 % interval | AUROC % | s |"
    yield "|---|---|---|---|---|---|---|"
    for _, row in found.iterrows():
        ap, fpr = (
            f"{100 * row[name]:.2f} | {100 * row[f'{name}_low']:.1f} .. {100 * row[f'{name}_high']:.1f}"
            for name in ("ap", "fpr95")
        )
        seconds = f"{cost.alone[row['score']]:.2f}" if row["score"] in cost.alone else ""
        yield f"| `{row['score']}` | {ap} | {fpr} | {100 * row['auroc']:.2f} | {seconds} |"
    yield ""


def main() -> None:
    """Measure all tables, and print them."""
    data, work = (Path(given).resolve() for given in sys.argv[1:3])
    found = [(table, measure(table, data, work, BY_NAME)) for table in tables(data)]
    for table, out in found:
        print("\n".join(shown(table, out)))


if __name__ == "__main__":
    main()

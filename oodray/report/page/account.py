"""How a run was made: its command, its versions, its machine, its time."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oodray.analysis.images import ImageFacts
from oodray.config import NO_CHECKPOINT, SETTINGS
from oodray.report.words import duration_text, rate_text
from oodray.results.rows import STAGES
from oodray.scores.registry import DEFAULT_SCORES

_STAGE_NAMES = {
    "decode": "reading and decoding",
    "segment": "network",
    "cluster": "K-Means and scores",
    "finish": "rule, tallies, files",
}


_FURTHER = {"model": "members", "checkpoint": "member_checkpoints"}
"""Options that can be repeated, and the setting that holds all their values but the first."""


def command_of(run: Mapping[str, Any], out: str) -> list[str]:
    """The command that makes the same run, with what a preset or the network had decided written out.

    Args:
        run: the content of run.json.
        out: the results folder.

    >>> command_of({"config": {"dataset": "folder", "root": "my photos", "k": 6, "seed": 0}}, "out")
    ['oodray', 'run', '--dataset', 'folder', '--root', 'my photos', '--k', '6', '--out', 'out']
    >>> command_of({"config": {"dataset": "demo", "model": "a", "members": ["b"], "scales": []}}, "out")
    ['oodray', 'run', '--dataset', 'demo', '--model', 'a', '--model', 'b', '--out', 'out']
    """
    config = run["config"]
    if "imported" in run:
        return [*_import_command(run), "--out", out]
    words = ["oodray", "run"]
    for name, setting in SETTINGS.items():
        if setting.about.repeated:
            words += [word for one in _several(name, config) for word in (setting.option, one)]
            continue
        value = "auto" if name == "tau" and config.get("tau_auto") else config.get(name)
        further = config.get(_FURTHER.get(name, ""))
        if further:
            words += [word for one in (value, *further) for word in (setting.option, str(one or NO_CHECKPOINT))]
            continue
        if value is None or value == setting.default or not setting.about.commands or _is_default(name, value):
            continue
        if name == "workers" and config.get("fewest_workers"):
            value = f"{config['fewest_workers']}:{value}"
        if isinstance(value, bool):
            yes, _, no = setting.option.partition("/")
            words += [yes if value else no]
        else:
            words += [setting.option, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return [*words, "--out", out]


def _import_command(run: Mapping[str, Any]) -> list[str]:
    config, imported = run["config"], run["imported"]
    words = ["oodray", "import-scores", str(imported["folder"]), "--dataset", str(config["dataset"])]
    words += ["--root", str(config["root"])] if config.get("root") else []
    words += ["--name", str(config["scores"][0])] if config.get("scores") else []
    for name in ("split", "label_codes", "labels"):
        words += [SETTINGS[name].option, str(config[name])] if config.get(name) else []
    words += ["--resize", imported["resize"]] if imported.get("resize") else []
    return words + [f"--{switch}" for switch in ("negate", "blur") if imported.get(switch)]


def shell_lines(words: Sequence[str]) -> str:
    r"""The words of a command as a shell reads them, an option a line.

    >>> print(shell_lines(["oodray", "run", "--root", "my photos", "--k", "6"]))
    oodray run \
        --root 'my photos' \
        --k 6
    """
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(map(shlex.join, lines))


def machine_rows(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was computed with, as names and values."""
    config = run["config"]
    rows = [
        ("network", str(run.get("model") or "scores of another method")),
        ("weights, sha256", str(run["identity"].get("model_sha256") or "-")),
        ("device", str(run["identity"].get("device") or "-")),
        ("precision", str(config.get("dtype") or "-")),
        ("executor", str(config.get("executor") or "-")),
        ("started", str(run.get("started", "-")).replace("T", " ")),
        ("finished", str(run.get("finished", "not finished")).replace("T", " ")),
    ]
    if run.get("seconds"):
        rows.append(("seconds, start-up included", f"{run['seconds']:.1f} ({duration_text(run['seconds'])})"))
    versions = {"oodray": run.get("oodray")} | dict(run.get("versions", {}))
    rows.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)))
    return [(name, value) for name, value in rows if value != "-"]


def stage_rows(images: Sequence[ImageFacts]) -> list[dict[str, Any]]:
    """Seconds per image of each stage: mean, median and the slowest image's, with the stage's share of all."""
    spent = {stage: [image.seconds[stage] for image in images if stage in image.seconds] for stage in STAGES}
    total = sum(map(sum, spent.values()))
    return [
        {
            "name": _STAGE_NAMES[stage],
            "mean": rate_text(float(np.mean(seconds))),
            "median": rate_text(float(np.median(seconds))),
            "slowest": rate_text(max(seconds)),
            "share": sum(seconds) / total,
        }
        for stage, seconds in spent.items()
        if seconds and sum(seconds) > 0
    ]


def _several(name: str, config: Mapping[str, Any]) -> list[str]:
    """The values of an option that may be given several times: the first, and those of the further networks."""
    values = (config.get(name), *(config.get("members" if name == "model" else "member_checkpoints") or ()))
    return [str(one or NO_CHECKPOINT) for one in values] if any(values) else []


def _is_default(name: str, value: Any) -> bool:
    """Whether a resolved setting says no more than its default."""
    return value in ([], ()) or (name == "scores" and list(value) == list(DEFAULT_SCORES))

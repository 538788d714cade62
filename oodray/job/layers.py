"""The settings of a run in layers: options win over a config file, which wins over the dataset's preset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_origin

from oodray.config import SETTINGS, RunConfig, build_config, check_settings, preset
from oodray.datasets.layouts import Layout, get_layout
from oodray.errors import ConfigError
from oodray.method.settings import SCORES
from oodray.settings import Settings
from oodray.spelling import did_you_mean


@dataclass(frozen=True)
class Layers:
    """The settings of a run, by where they are from.

    Attributes:
        layout: of the dataset that they name.
        published: the preset of the dataset.
        given: the config file's, and the options, which win over them.
        config: all of them together, with the defaults.
    """

    layout: Layout
    published: Settings
    given: Settings
    config: RunConfig


def read_layers(options: Settings, from_file: Settings | None = None) -> Layers:
    """Check the options, and put them over the settings of a config file and the preset of the dataset.

    Raises:
        ConfigError: an unknown name, a value of another type or out of its range, or no dataset.
        DatasetError: no such dataset is known.
    """
    given = check_settings(with_lists({k: v for k, v in options.items() if v is not None}), source="the options")
    named = build_config(from_file or {}, given)
    layout = get_layout(named.dataset)
    split = given.get("split") or (from_file or {}).get("split")
    if split is not None:
        layout = layout.of_split(split)
    published = preset(named.dataset)
    config = build_config(published, from_file or {}, given)
    scores = check_scores(config.scores)
    return Layers(layout, published, {**(from_file or {}), **given}, replace(config, scores=scores))


def with_lists(settings: Settings) -> Settings:
    """Settings in which a text in place of a list is read as the option is.

    Raises:
        ConfigError: it is no such list.

    >>> with_lists({"scores": "ratio, msp", "sweep_k": "3:5", "k": 4})
    {'scores': ('ratio', 'msp'), 'sweep_k': (3, 4, 5), 'k': 4}
    """
    found = dict(settings)
    for name, value in settings.items():
        setting = SETTINGS.get(name)
        if setting is None or get_origin(setting.type) is not tuple or not isinstance(value, str):
            continue
        if setting.about.from_text is not None:
            found |= setting.about.from_text(value)
    return found


def check_scores(scores: tuple[str, ...]) -> tuple[str, ...]:
    """The scores asked for, in their own order; all where none is.

    Raises:
        ConfigError: naming one that is not known.
    """
    for unknown in (score for score in scores if score not in SCORES):
        raise ConfigError(f"unknown score {unknown!r}; {did_you_mean(unknown, SCORES, what='known')}")
    return tuple(score for score in SCORES if score in scores) if scores else SCORES

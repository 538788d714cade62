"""The settings of a run in layers: options win over a config file, which wins over the dataset's preset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_origin

from oodray.config import SETTINGS, RunConfig, build_config, check_settings, preset
from oodray.datasets.layouts import Layout, get_layout
from oodray.scores.registry import check_names
from oodray.settings import Settings


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
    published = preset(named.dataset)
    config = build_config(published, from_file or {}, given)
    scores = check_names(config.scores)
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

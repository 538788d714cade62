"""The settings of a run in layers: options win over a config file, which wins over the dataset's preset."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oodray.config import SELF, RunConfig, build_config, check_settings, preset, with_texts
from oodray.datasets.layouts import Layout, layout_of
from oodray.errors import ConfigError
from oodray.scores.fitted.folder import Fit, OwnReference
from oodray.scores.registry import are_pixel_scores, check_names
from oodray.settings import Settings

ALL_MAPS = "all"
"""In `keep_maps`: of every pixel score."""


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
    given = {name: value for name, value in options.items() if value is not None}
    given = check_settings(with_texts(given, source="the options"), source="the options")
    if given.get("tau_auto"):  # as an option wins over a file with another tau
        from_file = {name: value for name, value in (from_file or {}).items() if name != "tau"}
    named = build_config(from_file or {}, given)
    layout = layout_of({name: getattr(named, name) for name in ("dataset", "split", "label_codes", "labels")})
    published = preset(named.dataset)
    config = build_config(published, from_file or {}, given)
    scores = check_names(config.scores, _fit_of(config))
    config = replace(config, keep_maps=kept_maps(config.keep_maps, scores))
    return Layers(layout, published, {**(from_file or {}), **given}, replace(config, scores=scores))


def _fit_of(config: RunConfig) -> Fit | OwnReference | None:
    if config.fit is None:
        return None
    return OwnReference() if config.fit == SELF else Fit(config.fit)


def kept_maps(asked: tuple[str, ...], scores: tuple[str, ...]) -> tuple[str, ...]:
    """The scores whose maps are kept: those asked for, or with `all` every score of pixels.

    Raises:
        ConfigError: one of them is not computed, or is one of clusters, whose map follows from what is stored.

    >>> kept_maps(("all",), ("ratio", "energy"))
    ('energy',)
    """
    known = are_pixel_scores(scores)
    if asked == (ALL_MAPS,):
        return known
    for name in (name for name in asked if name not in known):
        raise ConfigError(f"--keep-maps {name}: it is none of the run's pixel scores, which are {', '.join(known)}")
    return tuple(name for name in known if name in asked)

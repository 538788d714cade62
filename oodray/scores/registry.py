"""The scores that oodray knows by name, and scores of yours, `package.module:MyScore`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from oodray.errors import ConfigError
from oodray.scores.clusters import MaskThenLogit, Ratio
from oodray.scores.logits import Energy, Entropy, Gen, MaxLogit, Msp
from oodray.scores.score import ClusterScore, PixelScore, Score
from oodray.spelling import did_you_mean

KNOWN: dict[str, type[Score]] = {
    score.name: score for score in (Ratio, MaskThenLogit, MaxLogit, Msp, Entropy, Energy, Gen)
}
"""Every score by its name, in the order of tables."""

DEFAULT_SCORES = ("ratio", "mask-then-logit", "max-logit", "msp", "entropy", "energy")
"""What is computed where nobody asks for anything."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The scores asked for, the known ones in their own order and then yours; the default ones where none is.

    Raises:
        ConfigError: naming one that is not known.

    >>> check_names(["energy", "my_scores:Margin", "ratio"]), check_names([]) == DEFAULT_SCORES
    (('ratio', 'energy', 'my_scores:Margin'), True)
    """
    for unknown in (name for name in names if name not in KNOWN and not is_own(name)):
        raise ConfigError(
            f"unknown score {unknown!r}; {did_you_mean(unknown, KNOWN, what='known')}; "
            "one of yours is named package.module:MyScore"
        )
    if not names:
        return DEFAULT_SCORES
    return (*(name for name in KNOWN if name in names), *dict.fromkeys(name for name in names if is_own(name)))


def is_own(name: str) -> bool:
    """Whether a name means a class of yours.

    >>> is_own("my_scores:Margin"), is_own("max-logit")
    (True, False)
    """
    module, colon, class_name = name.partition(":")
    return bool(module and colon and class_name)


def score_class(name: str, search_path: str | None = None) -> type[Score]:
    """The class of a score, known or yours.

    Args:
        name: of the score.
        search_path: a folder to look for modules in before the others, the driver's working directory.

    Raises:
        ConfigError: there is no such score, it cannot be imported, or it is no score of pixels.
    """
    if not is_own(name):
        check_names([name])
        return KNOWN[name]
    module_name, _, class_name = name.partition(":")
    if search_path is not None and search_path not in sys.path:
        sys.path.insert(0, search_path)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        raise ConfigError(
            f"cannot import the score {name}: {type(error).__name__}: {error}. "
            f"It is looked for in {search_path} and on PYTHONPATH, here and on every worker."
        ) from error
    return _checked(name, found)


def names_of(scores: Iterable[str], search_path: str | None = None) -> tuple[str, ...]:
    """How results name scores: a class of yours by its attribute `name`.

    Raises:
        ConfigError: as `score_class`, or two scores have one name.
    """
    found = tuple(score_class(score, search_path).name for score in scores)
    for index, name in enumerate(found):
        if name in found[:index]:
            raise ConfigError(f"two of the scores are named {name!r}: results tell scores apart by their names")
    return found


def source_files(scores: Iterable[str], search_path: str | None) -> list[Path]:
    """The files that define scores of yours."""
    classes = [score_class(score, search_path) for score in scores if is_own(score)]
    files = [getattr(sys.modules.get(found.__module__), "__file__", None) for found in classes]
    return [Path(file) for file in files if file is not None]


def pixel_scores(scores: Iterable[str], search_path: str | None = None) -> list[PixelScore]:
    """The scores among these that pixels have by themselves, ready to compute.

    Raises:
        ConfigError: as `score_class`, or one of yours cannot be made without arguments.
    """
    classes = [(score, score_class(score, search_path)) for score in scores]
    return [_made(score, found) for score, found in classes if issubclass(found, PixelScore)]


def are_pixel_scores(scores: Iterable[str]) -> tuple[str, ...]:
    """Those of the scores that pixels have by themselves; nothing is imported.

    >>> are_pixel_scores(["ratio", "energy", "my_scores:Margin"])
    ('energy', 'my_scores:Margin')
    """
    return tuple(score for score in scores if is_own(score) or issubclass(KNOWN[score], PixelScore))


def cluster_scores(scores: Iterable[str]) -> list[ClusterScore]:
    """The scores among these that pixels have by their clusters."""
    classes = [KNOWN[score] for score in scores if score in KNOWN]
    return [found() for found in classes if issubclass(found, ClusterScore)]


def _made(score: str, found: type[PixelScore]) -> PixelScore:
    try:
        return found()
    except Exception as error:
        raise ConfigError(f"the score {score} cannot be made: {type(error).__name__}: {error}") from error


def _checked(name: str, found: object) -> type[PixelScore]:
    if not isinstance(found, type) or not issubclass(found, PixelScore):
        raise ConfigError(f"the score {name} is {found!r}; it must be a class derived from oodray.PixelScore")
    if not isinstance(getattr(found, "name", None), str) or not isinstance(getattr(found, "help", None), str):
        raise ConfigError(f"the score {name} needs two texts as class attributes, name and help; see oodray.PixelScore")
    abstract = sorted(getattr(found, "__abstractmethods__", ()))
    if abstract:
        raise ConfigError(f"the score {name} lacks the method {abstract[0]}; see oodray.PixelScore")
    if found.name in KNOWN and KNOWN[found.name] is not found:
        raise ConfigError(f"the score {name} is named {found.name!r}, which is a score of oodray: give it another name")
    return found

"""The scores that oodray knows by name, and scores of yours, `package.module:MyScore`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oodray.errors import ConfigError
from oodray.scores.clusters import MaskThenLogit, Ratio
from oodray.scores.fitted.fit_in_use import FitInUse, MadeOfFit
from oodray.scores.fitted.folder import Fit, OwnReference
from oodray.scores.fitted.scores import FITTED
from oodray.scores.logits import Energy, Entropy, Gen, MaxLogit, Msp, MutualInformation, PredictiveEntropy
from oodray.scores.masks import QUERY_SCORES
from oodray.scores.pooled import Pool, PooledScore
from oodray.scores.score import ClusterScore, PixelScore, Score
from oodray.spelling import did_you_mean

if TYPE_CHECKING:
    from oodray.scores.fitted.bank import Bank
    from oodray.scores.fitted.novelty import LeftOut

_CLASSES: tuple[type[Score], ...] = (
    *(Ratio, MaskThenLogit, MaxLogit, Msp, Entropy, Energy, Gen),
    *FITTED,
    *QUERY_SCORES,
    *(PredictiveEntropy, MutualInformation),
)
KNOWN = {score.name: score for score in _CLASSES}
"""Every score by its name, in the order of tables."""

DEFAULT_SCORES = ("ratio", "mask-then-logit", "max-logit", "msp", "entropy", "energy")
"""What is computed where nobody asks for anything."""


@dataclass(frozen=True)
class FitChoice:
    """Which fit scores are made of, and how.

    Attributes:
        path: of the fit, or `SELF`.
        knn_metric: the metric of `knn`.
        gap: of images before and after one in its sequence, how many are left out with it, where the fit is of the
            run's own images.
        bank: of the fit, where it has been read already.
    """

    path: str
    knn_metric: str = "euclidean"
    gap: int = 0
    bank: Bank | None = None


def check_names(names: Sequence[str], fit: Fit | OwnReference | None = None) -> tuple[str, ...]:
    """The scores asked for, the known ones in their own order and then yours.

    Where none is asked for: the default ones, and those that a fit holds.

    Raises:
        ConfigError: naming one that is not known, or that the fit does not hold, or that needs a fit where there is
            none.

    >>> check_names(["energy", "my_scores:Margin", "ratio"]), check_names([]) == DEFAULT_SCORES
    (('ratio', 'energy', 'my_scores:Margin'), True)
    """
    pools = {name: pool for name in names if (pool := Pool.named(name)) is not None}
    for name in names:
        _check_known(pools[name].of if name in pools else name)
    if not names:
        return (*DEFAULT_SCORES, *(fit.names if fit else ()))
    for pooled in (pooled for pooled, pool in pools.items() if not are_pixel_scores([pool.of])):
        raise ConfigError(f"{pooled}: {pools[pooled].of} is a score of clusters already; pool a score of pixels")
    asked = {*names, *(pool.of for pool in pools.values())}
    for name in (name for name in KNOWN if name in asked and "fit" in KNOWN[name].needs):
        if fit is None:
            raise ConfigError(
                f"the score {name} needs statistics of in-distribution images: `oodray fit --dataset NAME --root DIR "
                "--model M --out FIT` makes them, then pass --fit FIT"
            )
        fit.require(name)
    others = dict.fromkeys(name for name in names if name in pools or is_own(name))
    return (*(name for name in KNOWN if name in names), *others)


def is_own(name: str) -> bool:
    """Whether a name means a class of yours.

    >>> is_own("my_scores:Margin"), is_own("max-logit")
    (True, False)
    """
    module, colon, class_name = name.partition(":")
    return bool(module and colon and class_name) and Pool.named(name) is None


def score_class(name: str, search_path: str | None = None) -> type[Score]:
    """The class of a score, known or yours.

    Args:
        name: of the score.
        search_path: a folder to look for modules in before the others, the driver's working directory.

    Raises:
        ConfigError: there is no such score, it cannot be imported, or it is no score of pixels.
    """
    if not is_own(name):
        _check_known(name)
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
    found = tuple(score if Pool.named(score) else score_class(score, search_path).name for score in scores)
    for index, name in enumerate(found):
        if name in found[:index]:
            raise ConfigError(f"two of the scores are named {name!r}: results tell scores apart by their names")
    return found


def source_files(scores: Iterable[str], search_path: str | None) -> list[Path]:
    """The files that define scores of yours."""
    sources = [pool.of if (pool := Pool.named(score)) else score for score in scores]
    classes = [score_class(score, search_path) for score in sources if is_own(score)]
    files = [getattr(sys.modules.get(found.__module__), "__file__", None) for found in classes]
    return [Path(file) for file in files if file is not None]


def pixel_scores(
    scores: Iterable[str],
    search_path: str | None = None,
    fit: FitChoice | None = None,
    left_out: LeftOut | None = None,
) -> list[PixelScore]:
    """The scores among these that pixels have by themselves, or pooled over regions, ready to compute.

    `left_out` gives, of an image by its id, the images whose vectors in a bank are left out.

    Raises:
        ConfigError: as `score_class`, or one of yours cannot be made without arguments, or the fit does not hold one.
        ResultsError: there is no fit.
    """
    names = tuple(scores)
    pools = {name: pool for name in names if (pool := Pool.named(name)) is not None}
    sources = dict.fromkeys(pools[name].of if name in pools else name for name in names)
    classes = [(score, score_class(score, search_path)) for score in sources]
    of_pixels = [(score, found) for score, found in classes if issubclass(found, PixelScore)]
    fitted = [found for _, found in of_pixels if "fit" in found.needs]
    made = {found.name: _made(score, found) for score, found in of_pixels if found not in fitted}
    if fitted:
        assert fit is not None, "scores that need a fit are refused where there is none"
        use = FitInUse(Fit(fit.path, fit.bank), fit.knn_metric, left_out)
        made |= {found.name: _made_of_fit(found, use) for found in fitted}
    of_name = {score: made[found.name] for score, found in of_pixels}
    of_name |= {name: PooledScore(name, of_name[pool.of], pool) for name, pool in pools.items()}
    return [of_name[name] for name in names if name in of_name]


def are_pixel_scores(scores: Sequence[str]) -> tuple[str, ...]:
    """Those of the scores that pixels have by themselves; nothing is imported.

    >>> are_pixel_scores(["ratio", "energy", "my_scores:Margin"])
    ('energy', 'my_scores:Margin')
    """
    pooled_or_own = (score for score in scores if Pool.named(score) or is_own(score))
    known = (score for score in scores if score in KNOWN and issubclass(KNOWN[score], PixelScore))
    chosen = {*pooled_or_own, *known}
    return tuple(score for score in scores if score in chosen)


def without_fit(scores: Iterable[str]) -> tuple[str, ...]:
    """The scores among these that need no fit, pooled ones included.

    >>> without_fit(["ratio", "energy", "knn", "mean(novelty)"])
    ('ratio', 'energy')
    """
    sources = {score: pool.of if (pool := Pool.named(score)) else score for score in scores}
    return tuple(score for score, of in sources.items() if of not in KNOWN or "fit" not in KNOWN[of].needs)


def cluster_scores(scores: Iterable[str]) -> list[ClusterScore]:
    """The scores among these that pixels have by their clusters."""
    classes = [KNOWN[score] for score in scores if score in KNOWN]
    return [found() for found in classes if issubclass(found, ClusterScore)]


def _check_known(name: str) -> None:
    if name not in KNOWN and not is_own(name):
        raise ConfigError(
            f"unknown score {name!r}; {did_you_mean(name, KNOWN, what='known')}; "
            "one of yours is named package.module:MyScore"
        )


def _made(score: str, found: type[PixelScore]) -> PixelScore:
    try:
        return found()
    except Exception as error:
        raise ConfigError(f"the score {score} cannot be made: {type(error).__name__}: {error}") from error


def _made_of_fit(found: type[PixelScore], use: FitInUse) -> PixelScore:
    if not issubclass(found, MadeOfFit):
        raise ConfigError(f"the score {found.name} cannot be made of a fit: no score of yours can need one")
    return found.of_fit(use)


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

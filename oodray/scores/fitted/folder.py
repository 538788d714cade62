"""FIT/: what a fit leaves behind, as JSON and safetensors, which run no code when they are read.

FIT/fit.json                 network, dataset and settings that it is of; scores that were refused, remarks
FIT/statistics.safetensors   the sums, and what is counted of queries
FIT/bank.safetensors         the bank
FIT/scores.safetensors       the parameters of each score, NAME/FIELD
FIT/parts/                   while images are left to do: what each unit gave
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ConfigError, ResultsError
from oodray.metrics.scales import Scale, scale_named
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.settings import OF_SELF, FitSettings
from oodray.scores.fitted.sums import Sums
from oodray.scores.maskomaly import QueryUse
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, storage_path

if TYPE_CHECKING:
    from oodray.scores.fitted.neighbours import Neighbours

FORMAT = 1

Arrays = dict[str, NDArray[Any]]


class FitFolder:
    """The paths of a fit, all absolute."""

    def __init__(self, path: str | Place) -> None:
        self.path = storage_path(path)
        self.fit = self.path / "fit.json"
        self.statistics = self.path / "statistics.safetensors"
        self.bank = self.path / "bank.safetensors"
        self.scores = self.path / "scores.safetensors"
        self.parts = self.path / "parts"

    def read(self) -> dict[str, Any]:
        """The content of fit.json.

        Raises:
            ResultsError: this is no fit, or one that is not finished.
        """
        try:
            content = json.loads(self.fit.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if self.parts.exists():
                raise ResultsError(
                    f"the fit in {self.path} is not finished: run its `oodray fit` command again to continue it"
                ) from error
            raise ResultsError(
                f"{self.path} is not a fit: it has no fit.json. `oodray fit --dataset NAME --root DIR --model M "
                f"--out {self.path}` makes one"
            ) from error
        except OSError as error:
            raise ResultsError(f"cannot read {self.fit}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{self.fit} is damaged ({error}): fit again with `oodray fit`") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ResultsError(f"{self.fit} is not a fit that this version of oodray can read: fit again")
        return content

    def write(
        self,
        identity: Mapping[str, Any],
        settings: FitSettings,
        sums: Sums | None,
        bank: Bank,
        parameters: Mapping[str, Any],
        *,
        queries: QueryUse | None = None,
        **about: Any,
    ) -> None:
        """Write a fit; fit.json comes last, and with it the fit is whole.

        Args:
            identity: the network, the dataset and the settings that decide a number.
            settings: of the fit.
            sums: over all images; None where there are none.
            bank: of all images.
            parameters: of each score, dataclasses by name.
            queries: what all images make of the queries of a mask classifier.
            about: what else fit.json says.

        Raises:
            RunError: it cannot be written.
        """
        scalars: dict[str, dict[str, Any]] = {}
        arrays: Arrays = {}
        for name, of_score in parameters.items():
            scalars[name] = {"kind": type(of_score).__name__}
            for field in fields(of_score):
                value = getattr(of_score, field.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{name}/{field.name}"] = value
                else:
                    scalars[name][field.name] = value
        of_queries = {} if queries is None else queries.to_arrays()
        if sums is not None:
            named = {f"queries/{name}": of_queries[name] for name in of_queries}
            write_arrays(self.statistics, sums.to_arrays() | named)
        write_arrays(self.bank, bank.to_arrays())
        write_arrays(self.scores, arrays)
        content = {
            "format": FORMAT,
            "identity": dict(identity),
            "settings": asdict(settings),
            "vectors": len(bank),
            "images": bank.image_ids,
            "scores": scalars,
            **about,
        }
        text = json.dumps(content, indent=2, allow_nan=False)
        with replacing(self.fit) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


class OwnReference:
    """What a run's own images will give, before they have: for names of scores alone."""

    names = ("novelty", "novelty-half")
    """What is computed where nobody asks for anything."""

    def require(self, name: str) -> None:
        """Refuse a score that the images of a run do not give.

        Raises:
            ConfigError: naming it.
        """
        if name not in OF_SELF:
            raise ConfigError(
                f"--fit self gives {', '.join(OF_SELF)}; {name} needs statistics of in-distribution images: "
                "`oodray fit` makes them, then pass --fit FIT"
            )


class Fit:
    """A fit, read as far as it is asked for.

    Args:
        path: of its folder.

        bank: its bank, where it has been read already.

    Raises:
        ResultsError: there is no fit.
    """

    def __init__(self, path: str | Place, bank: Bank | None = None) -> None:
        self.folder = FitFolder(path)
        self.content = self.folder.read()
        self.settings = FitSettings(**self.content["settings"])
        if bank is not None:
            self.bank = bank

    @property
    def tau(self) -> float:
        """The threshold below which a pixel is unsure, a low quantile of in-distribution confidences.

        Raises:
            ConfigError: it is the reference of a run, which has none.
        """
        if "calibration" not in self.content:
            raise ConfigError(
                f"{self.folder.path} is the reference of a run, which has no tau: pass --tau X, or a fit of "
                "in-distribution images"
            )
        return float(self.content["calibration"]["tau"])

    @property
    def of_run(self) -> bool:
        """Whether it is the reference that a run made of its own images: no image is compared with itself."""
        return "reference" in self.content

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that it holds."""
        return tuple(self.content["fitted"])

    def sha256(self) -> str:
        """Of all that scores are made of.

        Raises:
            ResultsError: a file is not there.
        """
        digest = hashlib.sha256()
        statistics = () if self.of_run else (self.folder.statistics,)
        for path in (self.folder.fit, *statistics, self.folder.bank, self.folder.scores):
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise ResultsError(f"cannot read {path}: {error.strerror or error}; fit again") from error
        return digest.hexdigest()

    @cached_property
    def sums(self) -> Sums:
        """The sums over all images."""
        return Sums.from_arrays(self._statistics)

    @property
    def queries(self) -> QueryUse | None:
        """What the images make of the queries of a mask classifier; None for other networks."""
        arrays = {name.partition("/")[2]: values for name, values in self._statistics.items() if "/" in name}
        return QueryUse.from_arrays(arrays) if arrays else None

    @cached_property
    def bank(self) -> Bank:
        """The feature vectors, with their images."""
        return Bank.from_arrays(
            read_arrays(self.folder.bank), size=self.settings.bank, image_ids=self.content["images"]
        )

    def parameters(self, name: str) -> Any:
        """The parameters of a score, as `fit_scores` gave them; None for one that has none.

        Raises:
            ConfigError: the fit does not hold that score; the message says why.
        """
        from oodray.scores.fitted import fitting

        self.require(name)
        scalars = dict(self.content["scores"].get(name, {}))
        if not scalars:
            return None
        kind = fitting.KINDS[scalars.pop("kind")]
        arrays = {
            key.removeprefix(f"{name}/"): values for key, values in self._arrays.items() if key.startswith(f"{name}/")
        }
        return kind(**{key: _plain(value) for key, value in scalars.items()}, **arrays)

    def scale(self, name: str, metric: str = "euclidean") -> Scale:
        """The scale of the keys of a score.

        Raises:
            ResultsError: the fit does not say it.
        """
        from oodray.scores.fitted.key_scales import COSINE_SCALE

        if metric == "cosine":
            return COSINE_SCALE
        try:
            return scale_named(self.content["scales"][name])
        except (KeyError, ValueError) as error:
            raise ResultsError(f"{self.folder.fit} does not say by which keys {name} is counted: fit again") from error

    def neighbours(self, *, metric: str = "euclidean", device: str = "cpu") -> Neighbours:
        """The bank, ready to be searched, for `knn` and `cdnp`.

        Raises:
            ConfigError: the fit does not hold `knn`.
        """
        from oodray.scores.fitted.neighbours import Neighbours

        return Neighbours.of(self.bank, self.parameters("knn"), metric=metric, device=device)

    def require(self, name: str) -> None:
        """Refuse a score that the fit does not hold.

        Raises:
            ConfigError: saying why it does not.
        """
        if name in self.names:
            return
        reason = self.content["refused"].get(name)
        if reason is not None:
            raise ConfigError(f"the fit {self.folder.path} has no {name}: {reason}")
        raise ConfigError(
            f"the fit {self.folder.path} has no {name}, it holds {', '.join(self.names)}: "
            f"the same `oodray fit` with --scores {name} adds it, without another pass over the images"
        )

    def require_network(self, network: Mapping[str, Any]) -> None:
        """Refuse another network than the fit is of.

        Args:
            network: what `network_identity` says of the one at hand.

        Raises:
            ConfigError: saying in what they differ.
        """
        ours = self.content["identity"]
        differences = [
            f"{_NETWORK[name]} was {ours.get(name, _ONE_PASS.get(name))!r}, is {value!r}"
            for name, value in network.items()
            if name in _NETWORK and ours.get(name, _ONE_PASS.get(name)) != value
        ]
        if differences:
            raise ConfigError(
                f"the fit {self.folder.path} is of another network: {'; '.join(differences)}. Pass the network that it "
                "was made with, or make one for this network with `oodray fit --model M --out ANOTHER`"
            )

    @cached_property
    def _statistics(self) -> Arrays:
        return read_arrays(self.folder.statistics)

    @cached_property
    def _arrays(self) -> Arrays:
        return read_arrays(self.folder.scores)


_NETWORK = {
    "model": "the network",
    "model_sha256": "the sha256 of the weights",
    "code_sha256": "the sha256 of the file that makes it",
    "features_sha256": "the sha256 of the network of the features",
    "feature_stage": "the feature stage",
    "members_sha256": "the sha256 of the further networks",
    "flip": "--flip",
    "scales": "--scales",
    "mc_dropout": "--mc-dropout",
}

_ONE_PASS: dict[str, Any] = {"members_sha256": [], "flip": False, "scales": [], "mc_dropout": 0}
"""What a network is asked by itself, once for an image."""


def network_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's identity says which network, and which of its maps, it is of.

    A network without a file has its name alone.
    """
    named = identity["model_sha256"] is None and identity["code_sha256"] is None
    return {name: (_ONE_PASS | dict(identity))[name] for name in _NETWORK if named or name != "model"}


def write_arrays(target: Place, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file that appears whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    from safetensors.numpy import save

    # Not `save_file`, whose files only their owner may read.
    data = save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def read_arrays(path: Place) -> Arrays:
    """The arrays of a safetensors file.

    Raises:
        ResultsError: it is not there, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, load_file

    try:
        return load_file(path) if isinstance(path, Path) else load(path.read_bytes())
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ResultsError(f"{path} is damaged ({error}): fit again with `oodray fit`") from error


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

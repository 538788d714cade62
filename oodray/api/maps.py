"""Where the maps of an image come from that pictures and reports draw: the results, or the network of the run."""

from __future__ import annotations

from typing import Any

from oodray.config import SELF, SETTINGS
from oodray.errors import ResultsError
from oodray.report.maps import Maps, MapSource
from oodray.results.folder import ResultsFolder
from oodray.results.maps import class_map, kept_scores, score_map
from oodray.results.stored_image import StoredImage

_OF_DETECT = (
    "scores",
    "seed",
    "normalize_features",
    "kmeans_backend",
    "n_init",
    "regions",
    "threads",
    "fit",
    "knn_metric",
    "refine",
)


def kept_maps(folder: ResultsFolder) -> MapSource | None:
    """The maps that a run has kept; None where it has kept none.

    Raises:
        ResultsError: this is no results folder.
    """
    scores, names = kept_scores(folder), folder.class_names()
    if not scores:
        return None

    def maps(image: StoredImage) -> Maps:
        of_scores = {score: score_map(folder, image.image_id, score) for score in scores}
        confidence = -of_scores["max-logit"] if "max-logit" in of_scores else None
        return Maps(of_scores, confidence, class_map(folder, image.image_id), names)

    return maps


def recomputed_maps(folder: ResultsFolder) -> MapSource:
    """The maps of an image from the network of a run, with the run's own settings.

    Raises:
        ResultsError: the run has imported scores, and no network.
        ModelError: the network is not there.
    """
    run = folder.read_run()
    rule = folder.rule()
    if rule is None:
        raise ResultsError(f"{folder.path} holds imported scores: there is no network to recompute their maps with")
    if run["config"].get("blur"):
        raise ResultsError(
            f"{folder.path} was made with --blur, which a recomputed map lacks: pass --keep-maps all to the run"
        )
    from oodray.api.detect import detect
    from oodray.models.loading import load

    config: dict[str, Any] = {name: setting.default for name, setting in SETTINGS.items()} | run["config"]
    members = config["members"] or ()
    checkpoints = (config["checkpoint"], *(config["member_checkpoints"] or ()))
    net = load(
        (config["model"], *members),
        checkpoint=checkpoints if any(checkpoints) else None,
        feature_stage=config["feature_stage"],
        features=config["features"],
        dtype=config["dtype"],
        flip=config["flip"],
        scales=config["scales"] or (),
        mc_dropout=config["mc_dropout"],
        seed=config["seed"],
    )
    settings = {name: config[name] for name in _OF_DETECT if config[name] is not None}
    if settings.get("fit") == SELF:
        settings["fit"] = str(folder.reference)

    def maps(image: StoredImage) -> Maps:
        found = detect(
            image.read_photo(),
            net,
            k=rule.k,
            tau=rule.tau,
            ood_ratio=rule.ood_ratio,
            image_id=image.image_id,
            **settings,
        )
        # Those two follow from the stored clusters and the others.
        scores = {name: found.scores[name] for name in found.scores if name not in ("ratio", "mask-then-logit")}
        return Maps(scores, found.confidence, found.classes, net.class_names)

    return maps

"""One image, without a dataset and without a results folder: `oodray.detect`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oodray.config import RunConfig, check_settings, with_texts
from oodray.datasets.images import decode_image, read_bytes
from oodray.datasets.orientation import exif_orientation, upright
from oodray.errors import ConfigError, ImageError
from oodray.job.finisher import cluster_maps_at_image_size, judged, tallies_of
from oodray.job.units import DecodedImage, SegmentedImage
from oodray.job.worker import cluster_maps_of, head_of, maps_of, segment_images
from oodray.method.kmeans import resolve_backend
from oodray.method.rule import ood_mask
from oodray.method.settings import MethodSettings
from oodray.metrics.tally import first_key_at_least
from oodray.models.network import Network
from oodray.models.segmenter import Segmentation, Segmenter, check_segmentations
from oodray.records import extended
from oodray.scores.fitted.folder import Fit, network_identity
from oodray.scores.maps import PixelMaps
from oodray.scores.registry import check_names, cluster_scores, names_of, pixel_scores
from oodray.scores.score import ClusterMaps, PixelScore
from oodray.settings import shown

ScoresAsked = str | Sequence[str | PixelScore]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in an image. All maps are `(H, W)`, of the size of the image.

    Attributes:
        mask: uint8, 255 in OoD clusters, else 0.
        ratio: float64, r_k of the cluster of each pixel (eq. 3): the share of its pixels whose confidence is below tau.
        clusters: uint8, the cluster of each pixel.
        confidence: float16, the largest logit.
        classes: int16, the likeliest class.
        scores: a map for each score asked for, by its name: float32; float64 of `ratio` and `mask-then-logit`.
            Higher is more out of distribution.
        image_score: the largest ratio of a cluster.
        k: the number of clusters asked for.
        tau: the threshold that was used.
        ood_ratio: T.
    """

    mask: NDArray[np.uint8]
    ratio: NDArray[np.float64]
    clusters: NDArray[np.uint8]
    confidence: NDArray[np.float16]
    classes: NDArray[np.int16]
    scores: dict[str, NDArray[np.float32] | NDArray[np.float64]]
    image_score: float
    k: int
    tau: float
    ood_ratio: float

    @property
    def ood_fraction(self) -> float:
        """Share of the pixels that the mask holds."""
        return float(np.count_nonzero(self.mask) / self.mask.size)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return (
            f"<Found in {width}x{height} pixels: {self.ood_fraction:.2%} OoD at k={self.k}, tau={self.tau}, "
            f"ood_ratio={self.ood_ratio}>"
        )


def detect(
    image: NDArray[np.uint8] | str | os.PathLike[str],
    net: Segmenter | Segmentation,
    *,
    k: int = RunConfig.k,
    tau: float | str | None = None,
    ood_ratio: float = RunConfig.ood_ratio,
    scores: ScoresAsked | None = None,
    seed: int = RunConfig.seed,
    image_id: str | None = None,
    normalize_features: bool = RunConfig.normalize_features,
    kmeans_backend: str = RunConfig.kmeans_backend,
    n_init: int = RunConfig.n_init,
    confidence_bits: int = RunConfig.confidence_bits,
    regions: str = RunConfig.regions,
    threads: int = RunConfig.threads,
    fit: str | os.PathLike[str] | None = None,
    knn_metric: str = RunConfig.knn_metric,
    refine: str | None = None,
) -> Found:
    """Find what a network was never taught in an image.

    A run finds the same, to the last bit, for the same image, network, settings, device and threads, with batches of
    one image.

    Args:
        image: `(H, W, 3)` uint8 RGB, or where an image file is, with `~/` for the home folder. A file is
            turned as its EXIF orientation says.
        net: a network, see `oodray.load`; or what a network of your own says of this image, as tensors or as arrays of
            numpy.
        k: the number of clusters.
        tau: a pixel with a smaller confidence is unsure. None takes the network's own, `"auto"` that of the fit.
        ood_ratio: T, a cluster with a larger share of unsure pixels is OoD.
        scores: the scores to give, as a list of names and of objects of your own, or as `"ratio,energy"`; None gives
            the default ones.
        seed: of the K-Means.
        image_id: its name in the dataset: the seed of an image is a hash of seed, name and k. None takes the name of
            the file without its suffix, and no name for an array.
        normalize_features: L2-normalise features before clustering.
        kmeans_backend: `"auto"`, `"torch"`, `"cuml"` or `"sklearn"`.
        n_init: restarts of the K-Means.
        confidence_bits: of the keys that confidences are counted by; 16 is exact.
        regions: `"kmeans"`, `"slic"` or `"grid"`: what takes the place of the clusters.
        threads: CPU threads of PyTorch meanwhile; they can change the last bit of a float.
        fit: the folder of a fit, for scores that need statistics, see `oodray.fit`; without a list of scores, all that
            it holds are given, too.
        knn_metric: `"euclidean"` or `"cosine"`, of the score `knn`.
        refine: `"guided"` or `"bilateral"`, or with a radius such as `"guided:8"`: refine the maps of pixel scores
            along the edges of the image. Confidence and mask stay as they are.

    Raises:
        ConfigError: a setting is out of range, no tau is known, `net` is no network, or the fit is of another one.
        ResultsError: there is no fit.
        ImageError: the image cannot be read, or the network fails on it; or `net` has maps of another form.

    >>> import torch
    >>> photo = np.zeros((32, 32, 3), np.uint8)
    >>> logits = torch.full((2, 8, 8), 1.0)
    >>> logits[:, 4:] = 9.0
    >>> features = torch.arange(8.0)[:, None].expand(1, 8, 8) // 4
    >>> found = detect(photo, Segmentation(logits, features), k=2, tau=5.0)
    >>> found.ood_fraction, found.image_score
    (0.5, 1.0)
    """
    net = _checked(net)
    names, own = _asked(scores)
    config = _config(
        net,
        {
            "k": k,
            "tau": tau,
            "ood_ratio": ood_ratio,
            "scores": names,
            "seed": seed,
            "normalize_features": normalize_features,
            "kmeans_backend": kmeans_backend,
            "n_init": n_init,
            "confidence_bits": confidence_bits,
            "threads": threads,
            "regions": regions,
            "fit": None if fit is None else os.fspath(fit),
            "knn_metric": knn_metric,
            "refine": refine,
        },
    )
    if own and not names:
        config = replace(config, scores=())
    settings = MethodSettings.of(config, str(Path.cwd()))
    decoded = _decoded(image, image_id)
    with _threads(config.threads):
        segmentation = net if isinstance(net, Segmentation) else _segmentation(net, decoded)
        asked = [*pixel_scores(settings.scores, settings.search_path, settings.fit), *own]
        maps, segmented = _clustered(decoded, segmentation, settings, asked, net)
    found = _judged(segmented, settings, config.scores)
    order = [*names_of(config.scores, settings.search_path), *(score.name for score in own)]
    pixels = {score.name: maps.of(score, found.clusters) for score in asked}
    return replace(found, scores={name: (found.scores | pixels)[name] for name in order})


def _checked(net: Any) -> Segmenter | Segmentation:
    """A network, or what one says of an image, with tensors for its arrays."""
    if not isinstance(net, Segmenter | Segmentation):
        kind = f"the text {shown(net)}" if isinstance(net, str) else type(net).__name__
        raise ConfigError(f"net must be a network, see oodray.load, or an oodray.Segmentation, not {kind}")
    if isinstance(net, Segmenter):
        return net
    as_tensors = {name: _tensor(getattr(net, name)) for name in ("logits", "features", "class_logits", "mask_logits")}
    known = {name: _tensor(values) for name, values in net.scores.items()}
    [found] = check_segmentations([replace(net, **as_tensors, scores=known)], 1)
    return found


def _tensor(values: Any) -> Any:
    """An array as a tensor of its own memory; what cannot be one as it is."""
    if not isinstance(values, np.ndarray):
        return values
    with contextlib.suppress(TypeError):  # of a type that torch lacks
        # A copy: PyTorch warns of arrays that cannot be written to, and takes none with a step below 0.
        return torch.as_tensor(np.array(values, order="C"))
    return values


def _config(net: Segmenter | Segmentation, given: dict[str, Any]) -> RunConfig:
    """The settings, checked as those of a run are."""
    if given["tau"] == "auto":
        if given["fit"] is None:
            raise ConfigError('tau="auto" takes the tau of a fit: pass fit="FIT", see oodray.fit')
        given = given | {"tau": Fit(given["fit"]).tau}
    tau = given["tau"] if given["tau"] is not None else getattr(net, "tau", None)
    if tau is None:
        name = getattr(net, "name", None)
        raise ConfigError(
            f"no tau is known for {name or 'this network'}: pass tau=X, the confidence below which a pixel is unsure; "
            "`oodray calibrate` finds one on images that hold nothing unknown"
        )
    checked = check_settings(with_texts(given | {"tau": tau}, source="the arguments"), source="the arguments")
    config = RunConfig(dataset="one image", **checked)
    opened = None if config.fit is None else Fit(config.fit)
    if opened is not None and isinstance(net, Network):
        opened.require_network(network_identity(net.source.identity()))
    on = net.features.device.type if isinstance(net, Segmentation) else str(getattr(net, "device", "cpu"))
    backend = resolve_backend(config.kmeans_backend, on.partition(":")[0])
    return replace(config, scores=check_names(config.scores, opened), kmeans_backend=backend)


def _decoded(image: NDArray[np.uint8] | str | os.PathLike[str], image_id: str | None) -> DecodedImage:
    if isinstance(image, str | os.PathLike):
        uri = os.fspath(image)
        if uri.startswith("~/"):  # not every text: a Path takes a slash of s3:// away
            uri = str(Path(uri).expanduser())
        data = read_bytes(uri)
        pixels, orientation, warning = upright(decode_image(data), exif_orientation(data), None)
        name = Path(uri).stem
    else:
        uri, pixels, orientation, warning, name = "", image, None, None, ""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ImageError(
                f"an image is uint8 (H, W, 3) RGB, or the path of a file, not {kind}; "
                'np.asarray(image.convert("RGB")) makes one of any Pillow image'
            )
        if not image.size:
            raise ImageError(f"an image must have a pixel, not the shape {image.shape}")
    return DecodedImage(
        unit=0,
        image_id=name if image_id is None else image_id,
        dataset="",
        image_uri=uri,
        label_uri=None,
        height=pixels.shape[0],
        width=pixels.shape[1],
        orientation=orientation,
        warning=warning,
        image=pixels,
    )


def _segmentation(net: Segmenter, image: DecodedImage) -> Segmentation:
    """What a network says of an image; its failure is that of the image, as in a run."""
    try:
        [segmentation] = segment_images(net, [image])
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"the network failed: {type(error).__name__}: {error}") from error
    return segmentation


def _clustered(
    image: DecodedImage,
    segmentation: Segmentation,
    settings: MethodSettings,
    scores: Sequence[PixelScore],
    net: Segmenter | Segmentation,
) -> tuple[PixelMaps, SegmentedImage]:
    """Confidence, scores and clusters of an image; a failure is that of the image, as in a run."""
    try:
        head = None if isinstance(net, Segmentation) else head_of(net)
        maps = maps_of(image, segmentation, scores, head, settings.refine, with_classes=True)
        [clusters] = cluster_maps_of([image], [segmentation], settings)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"clustering failed: {type(error).__name__}: {error}") from error
    segmented = extended(SegmentedImage, image, confidence=maps.confidence, cluster_maps=clusters, classes=maps.classes)
    return maps, segmented


def _judged(image: SegmentedImage, settings: MethodSettings, scores: Sequence[str]) -> Found:
    """The rule, applied to the clusters of an image, and the scores that follow from it."""
    assert image.confidence is not None, "an image without an error has confidences"
    assert image.classes is not None, "they were asked for"
    maps = cluster_maps_at_image_size(image)
    clusters, tallies = maps[settings.k], tallies_of(maps, image, settings)[settings.k]
    tau_key = first_key_at_least(settings.tau)
    ratio_of = np.zeros(256)
    for cluster, tally in tallies.items():
        ratio_of[cluster] = tally.share_below(tau_key)
    mask, ratio = ood_mask(clusters, judged(tallies, settings)), ratio_of[clusters]
    of_clusters = ClusterMaps(ratio, mask, image.confidence)
    return Found(
        mask=mask,
        ratio=ratio,
        clusters=clusters,
        confidence=image.confidence,
        classes=image.classes,
        scores={score.name: score.of_clusters(of_clusters) for score in cluster_scores(scores)},
        image_score=float(ratio.max()),
        k=settings.k,
        tau=settings.tau,
        ood_ratio=settings.ood_ratio,
    )


def _asked(scores: Any) -> tuple[Any, list[PixelScore]]:
    """The names among the scores asked for, as they were given, and the objects."""
    if isinstance(scores, PixelScore):
        return (), [scores]
    if not isinstance(scores, list | tuple):
        return () if scores is None else scores, []
    own = [score for score in scores if isinstance(score, PixelScore)]
    return tuple(score for score in scores if not isinstance(score, PixelScore)), own


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch with so many CPU threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The named networks: our own, and the UPerNet InternImages that its authors published.

Files, sizes, sha256 and mIoU are those of the InternImage repository and its model hub, whose place `$HF_ENDPOINT`
changes, as for other programs. Nothing is downloaded here: a file is looked up in the cache folder, `$OODRAY_CACHE` or
`~/.cache/oodray`. Of our own networks one comes with the package; those trained on CamVid, whose licence forbids
commercial use, with the repository alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from oodray.errors import ModelError
from oodray.models.input_rule import InputRule
from oodray.spelling import did_you_mean

HUB = "https://huggingface.co"
FOLDER = "OpenGVLab/InternImage/resolve/main"
EMBEDDED = "internimage-n-demo"

_IN_PACKAGE = Path(__file__).parent
_IN_REPOSITORY = Path(__file__).parents[3] / "benchmarks" / "weights"

_XL_REMARK = (
    "users report poor pictures from the official internimage-xl-mapillary2cityscapes (issue 306 of the InternImage "
    "repository): look at yours before relying on it"
)


@dataclass(frozen=True)
class ZooModel:
    """A named network.

    Attributes:
        name: as given to `--model`.
        architecture: one of `oodray.models.internimage.architecture`, and the name of a config under `configs/models/`.
        file: name of the checkpoint.
        classes: number of classes it was trained on: the first channels of its logits.
        parameters: of backbone and head; without the auxiliary head, which serves training alone.
        miou: single-scale mIoU in percent, as published or, for our own, as measured.
        megabytes: size of the checkpoint.
        sha256: of the checkpoint as published.
        tau: the value stated for this network, if any.
        input_rule: the size at which it sees an image, None for the image's own.
        folder: where the checkpoint is kept if not in the cache folder: those of our own are.
        remark: what its users should know, if anything.
    """

    name: str
    architecture: str
    file: str
    classes: int
    parameters: int
    miou: float
    megabytes: int
    sha256: str
    tau: float | None = None
    input_rule: InputRule | None = None
    folder: Path | None = None
    remark: str | None = None

    @property
    def checkpoint(self) -> Path:
        """Where its weights are, or belong."""
        return (self.folder or cache_folder() / "models") / self.file

    @property
    def url(self) -> str:
        """Where its authors published it; not of our own."""
        return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{FOLDER}/{self.file}"


def cache_folder() -> Path:
    """Where downloaded weights are kept."""
    return Path(os.environ.get("OODRAY_CACHE", "~/.cache/oodray")).expanduser()


def model_names() -> tuple[str, ...]:
    """The names of all networks, our own first."""
    return tuple(_MODELS)


def get_model(name: str) -> ZooModel:
    """A network by name.

    Raises:
        ModelError: if there is none of this name.
    """
    if name in _MODELS:
        return _MODELS[name]
    raise ModelError(
        f"unknown model {name!r}; {did_you_mean(name, model_names(), what='known names')} "
        "(a path of an mmsegmentation config (.py, with --checkpoint) and package.module:factory are accepted too)"
    )


def find_checkpoint(model: ZooModel) -> Path:
    """The weights of a named network.

    Raises:
        ModelError: if they are not here; the message says how to get them.
    """
    path = model.checkpoint
    if path.is_file():
        return path
    if model.folder == _IN_PACKAGE:
        raise ModelError(f"{path}, which comes with oodray, does not exist; install oodray again")
    if model.folder == _IN_REPOSITORY:
        raise ModelError(
            f"the weights of {model.name} come with oodray's repository, not with its package, because of the licence "
            f"of their data: clone it, and pass --checkpoint benchmarks/weights/{model.file} of the clone"
        )
    raise ModelError(
        f"the weights of {model.name} are not on this machine: {path} does not exist.\n"
        f"To download them ({model.megabytes} MB): oodray models fetch {model.name}\n"
        f"{elsewhere(model)}\n"
        f"To try oodray without a download: --model {EMBEDDED}"
    )


def elsewhere(model: ZooModel) -> str:
    """How a machine without network comes by the weights of a published network."""
    return (
        f"On a machine without network, bring {model.url} ({model.megabytes} MB) there, "
        f"then: oodray models fetch {model.name} --from FILE"
    )


# With 150 outputs, as in every published file.
_PARAMETERS = {"t": 58_448_262, "s": 79_090_614, "b": 127_316_598, "l": 254_086_984, "xl": 365_924_466}


def _ours(name: str, folder: Path, sha256: str, *, classes: int, parameters: int, miou: float, tau: float) -> ZooModel:
    return ZooModel(name, name, f"{name}.pth", classes, parameters, miou, 7, sha256, tau, folder=folder)


def _cityscapes(size: str, miou: float, megabytes: int, sha256: str, *, tau: float | None = None) -> ZooModel:
    file = f"upernet_internimage_{size}_512x1024_160k_cityscapes.pth"
    name = f"internimage-{size}-cityscapes"
    return ZooModel(name, f"internimage-{size}", file, 19, _PARAMETERS[size], miou, megabytes, sha256, tau)


def _mapillary(size: str, miou: float, megabytes: int, sha256: str) -> ZooModel:
    file = f"upernet_internimage_{size}_512x1024_160k_mapillary2cityscapes.pth"
    name = f"internimage-{size}-mapillary2cityscapes"
    remark = _XL_REMARK if size == "xl" else None
    return ZooModel(name, f"internimage-{size}", file, 19, _PARAMETERS[size], miou, megabytes, sha256, remark=remark)


def _ade20k(
    size: str, miou: float, megabytes: int, sha256: str, *, crop: int = 512, tau: float | None = None
) -> ZooModel:
    file = f"upernet_internimage_{size}_{crop}_160k_ade20k.pth"
    name = f"internimage-{size}-ade20k"
    return ZooModel(
        name,
        f"internimage-{size}",
        file,
        150,
        _PARAMETERS[size],
        miou,
        megabytes,
        sha256,
        tau,
        InputRule(crop, 4 * crop),
    )


# mIoU: the cards beside the weights. tau: `oodray calibrate`, on validation images, see docs/calibration.md.
_OURS = (
    _ours(
        EMBEDDED,
        _IN_PACKAGE,
        "d91430b5916f1d398a31a541b63c334994fdf643dee6b57b2f2b3024b8d4bbcd",
        classes=10,
        parameters=3_327_966,
        miou=95.13,
        tau=3.52734375,
    ),
    _ours(
        "internimage-n-camvid",
        _IN_REPOSITORY,
        "7df91ddcef44ec47c02e5d5ef747cf4b2d5708d8c63d40a8348d22aa7c6df9ee",
        classes=11,
        parameters=3_328_063,
        miou=52.32,
        tau=2.6171875,
    ),
    _ours(
        "internimage-n-camvid-held-out",
        _IN_REPOSITORY,
        "f5a843b402a72a7300b13ec227b63cf2c4b62c3de763bfcb12c13e7639b80399",
        classes=8,
        parameters=3_327_772,
        miou=56.44,
        tau=2.943359375,
    ),
)

# tau: section 4.2.2 of the paper, for B and L.
_PUBLISHED = (
    _cityscapes("t", 82.58, 118, "d609235bd49cc00ebf56b3277ce69f88b1c27b8427e3317ba7ae981da052e052"),
    _cityscapes("s", 82.74, 160, "24155b8dabdbab1d6e7318db57ec563e0253fd1b1c7fde5ac2d2bac75517f5c7"),
    _cityscapes("b", 83.18, 257, "55bc153c6d677abb8241a9c7414a11ded1acca0323109976b1523afd77d2d716", tau=1.5),
    _cityscapes("l", 83.68, 512, "59808301f09cbd09796127a1d0ab7a294be4c961fd726c4716d931016e3ed7a0", tau=1.5),
    _cityscapes("xl", 83.62, 736, "ff087c60232a24b48cfb1547b00fe8756c8a93c72d779a22b8294b855302ce41"),
    _mapillary("l", 85.94, 512, "6df1621a686521be0ab59f393968bb2c443e6a10381c06d8097411cc0400916a"),
    _mapillary("xl", 86.20, 736, "9fd1e8e24d776c34a601eade5b47a6e3751ea5c9eec15bf7fcbbabdf036f7c95"),
    _ade20k("t", 47.9, 118, "4b9b7b356d69fb574ce8e722406e3c5198c1583f0c733e1778b86dcfb43b3e32"),
    _ade20k("s", 50.1, 160, "a03cd5f03fecea9b15ba7772fc30ba86b95da5c2e4e8c0faeb812580bb914fb3"),
    _ade20k("b", 50.8, 257, "faa267979fcdd68fe15f5dd850a033ae89da369bde84b4d32acb10ef8b934699", tau=1.1),
    _ade20k("l", 53.9, 512, "7e76cd62142c55fc59756887b535116a81462271c9ac05d785782896028b0556", crop=640, tau=1.1),
    _ade20k("xl", 55.0, 736, "ad0b19005c3d6f95e8acb62ad38ecf938cca93580bfdb4772fcbfb47db2b4cd9", crop=640),
)

_MODELS = {model.name: model for model in (*_OURS, *_PUBLISHED)}

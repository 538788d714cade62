"""Other files than images that may be a stranger's, and what reads them: `mutated_files.py` changes their bytes.

Each gives something, or an error that oodray raises on purpose.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from oodray.config import read_settings
from oodray.datasets.layouts import LAYOUTS, get_layout
from oodray.datasets.score_maps import read_scores
from oodray.errors import OodrayError
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.wrong_files import describe_wrong_file


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        name: of the kind.
        file: the name that they have below a folder.
        seeds: sound ones.
        read: what a run does with one; raises nothing but an OodrayError.
        words: what is put into them, beside changes of bytes: the words of a text format.
    """

    name: str
    file: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()

    def outcome(self, folder: Path, data: bytes) -> str:
        """What becomes of a file: `read` or the name of the error."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        try:
            self.read(path)
        except OodrayError as error:
            return type(error).__name__
        return "read"


def kinds() -> list[Kind]:
    """All kinds; those of datasets that are listed elsewhere only where their layouts are there."""
    found = [
        Kind("yaml", "run.yaml", _YAML, read_settings, _YAML_WORDS),
        Kind("frame list", "road/frame_list.json", _FRAME_LISTS, _find("road-anomaly", above=1), _JSON_WORDS),
        Kind("safetensors", "model.safetensors", [_safetensors()], _weights, _JSON_WORDS),
        Kind("checkpoint", "model.pth", [_checkpoint()], _weights),
        Kind("hdf5", "a.hdf5", _hdf5(), read_scores),
        Kind("npy", "a.npy", [_saved(np.save)], read_scores),
        Kind("npz", "a.npz", [_saved(np.savez), _saved(np.savez_compressed)], read_scores),
        Kind("score png", "a.png", [_score_image("PNG")], read_scores),
        Kind("score tiff", "a.tiff", [_score_image("TIFF")], read_scores),
    ]
    listed = [
        Kind("list csv", "list.csv", _CSV, _find("list")),
        Kind("list jsonl", "list.jsonl", _JSONL, _find("list"), _JSON_WORDS),
        Kind("tar", "shard-000.tar", [_tar()], _find("webdataset")),
    ]
    there = {"list csv": "list", "list jsonl": "list", "tar": "webdataset"}
    return found + [kind for kind in listed if there[kind.name] in LAYOUTS]


_YAML = [
    b"dataset: folder\nroot: photos\nk: 6\ntau: 1e-1\nsweep_k: 3:10\nscores: [ratio, msp]\nworkers: 2:16\n",
    b"base: &base {k: 5}\nood_ratio: 0.3\nseed: 0x1F\nnormalize_features: true\nroot: >\n  a\n  b\n",
]
_YAML_WORDS = (
    *(
        b"2:16",
        b"&a [*a]",
        b"<<: *base",
        b"!!python/name:os.system",
        b"1e999",
        b"- - - -",
        b"? [1]\n: 2\n",
        b"k: 1\nk: 2\n",
    ),
    *(
        b"!!binary x",
        b"!!timestamp 2020-13-45",
        b"%YAML 9.9\n---\n",
        b"\xef\xbb\xbf",
        b"[" * 3000,
        b"0" * 5000,
        b"\t",
        b"*z",
    ),
)
_FRAME_LISTS = [json.dumps(["a.jpg", "b.webp"]).encode(), json.dumps(["a.jpg"] * 3, indent=1).encode()]
_JSON_WORDS = (
    *(
        b"[" * 3000,
        b'{"a":' * 3000,
        b"1e999",
        b"NaN",
        b"-1",
        b"0" * 5000,
        b'"\\ud800"',
        b'"\\u0000.jpg"',
        b'"../a.jpg"',
    ),
    *(b"null", b"18446744073709551615", b'"__metadata__":{}', b'"F64"', b'"data_offsets":[0,9]', b"\xff\xfe", b"{}"),
)
_CSV = [b"image,label,id\na.jpg,a.png,one\nb.jpg,,two\n", b'\xef\xbb\xbfimage\n"a,b.jpg"\ns3://bucket/a.jpg\n']
_JSONL = [b'{"image": "a.jpg", "label": "a.png", "id": "one"}\n{"image": "b.jpg"}\n']


def _find(name: str, above: int = 0) -> Callable[[Path], object]:
    def find(path: Path) -> object:
        return get_layout(name).find(path.parents[above - 1] if above else path)

    return find


def _weights(path: Path) -> object:
    describe_wrong_file(path)
    return read_state_dict(path)


def _tensors() -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.zeros(3, dtype=torch.float16)}


def _safetensors() -> bytes:
    return safetensors.torch.save(_tensors(), {"format": "pt"})


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": _tensors(), "meta": {"epoch": 3}}, buffer)
    return buffer.getvalue()


def _scores() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).random((9, 13)).astype(np.float32)


def _saved(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, _scores())
    return buffer.getvalue()


def _score_image(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((_scores() * 65535).astype(np.uint16)).save(buffer, name)
    return buffer.getvalue()


def _hdf5() -> list[bytes]:
    """As the benchmark of SegmentMeIfYouCan writes them, and compressed; none where h5py is not installed."""
    try:
        import h5py
    except ImportError:
        return []
    files = []
    for options in ({}, {"compression": "gzip", "chunks": (4, 4)}):
        with tempfile.NamedTemporaryFile(suffix=".hdf5") as file:
            with h5py.File(file.name, "w") as store:
                store.create_dataset("value", data=_scores(), **options)
            files.append(Path(file.name).read_bytes())
    return files


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("000.jpg", "000.png", "001.jpg"):
            entry = tarfile.TarInfo(name)
            entry.size = 700
            archive.addfile(entry, io.BytesIO(bytes(700)))
    return buffer.getvalue()

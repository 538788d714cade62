"""Models of Hugging Face by name: a folder of files, here or from the hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from oodray.errors import ModelError
from oodray.storage.atomic import sha256_of

PREFIX = "hf:"

_ORG_AND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_FILES = ["*.json", "*.txt", "*.safetensors"]
_TOKENS = "merges.txt"  # decides what a tokenizer makes of a text, beside its JSON files
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def is_hugging_face(model: str) -> bool:
    """Whether `--model` means a model of Hugging Face: `hf:ORG/NAME`, `ORG/NAME`, or a folder with its files.

    >>> [is_hugging_face(name) for name in ("hf:facebook/a", "facebook/a", "nets/mine.py", "internimage-n-demo")]
    [True, True, False, False]
    """
    if model.startswith(PREFIX) or (Path(model).expanduser() / "config.json").is_file():
        return True
    return _ORG_AND_NAME.fullmatch(model) is not None and not model.endswith(".py") and not Path(model).exists()


def model_folder(model: str) -> Path:
    """The folder of the model's files: the one named, or that of a download, which happens where it has not yet.

    Raises:
        ModelError: it is not here and cannot be fetched, or holds no weights.
    """
    name = model.removeprefix(PREFIX)
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        folder = _downloaded(name)
    if not weight_files(folder):
        raise ModelError(f"{folder} holds no weights: expected is model.safetensors or pytorch_model.bin")
    return folder.absolute()


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights: safetensors where there are any."""
    return next((files for pattern in _WEIGHTS if (files := sorted(folder.glob(pattern)))), [])


def folder_sha256(folder: Path) -> str:
    """One digest for everything that decides what the model computes: weights and settings."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.json")), *folder.glob(_TOKENS), *weight_files(folder)]:
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _downloaded(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError("models of Hugging Face need the package transformers: pip install 'oodray[hf]'") from None
    failure: Exception | None = None
    # First what is here already, so that a run needs no network once it has its files.
    for here in (True, False):
        for patterns in (_FILES, ["*.json", "*.txt", "pytorch_model*.bin"]):
            try:
                folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=here))
            except Exception as error:  # no network, no such repository, no access, a name that is none
                failure = error
                break
            if weight_files(folder):
                return folder
    reason = str(failure).strip().partition("\n")[0] if failure else "it holds neither safetensors nor PyTorch weights"
    raise ModelError(
        f"cannot get {name} from Hugging Face: {reason}. Where there is a network, "
        f"`hf download {name} --local-dir DIR` fetches it; DIR in place of the name then needs none"
    )

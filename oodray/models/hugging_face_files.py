"""Folders of Hugging Face's transformers: settings, image processors, and networks with all of their weights.

No code of a repository is executed, and weights are read from safetensors or through torch's restricted unpickler.
Weights that do not cover the network are refused: what is missing would be random.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from oodray.errors import ModelError
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.hub import weight_files
from oodray.models.weights.parameters import refuse_not_finite
from oodray.models.weights.state_dicts import name_some

_NOT_USED = re.compile(
    r"(^|\.)(criterion|auxiliary_head|pooler|post_layernorm|mask_token|position_ids|num_batches_tracked)(\.|$)"
)
"""Keys that may be missing: of training, of heads that are not asked, and what has the same value everywhere."""


def transformers() -> Any:
    """The package, told to be quiet.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ModelError("models of Hugging Face need the package transformers: pip install 'oodray[hf]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def settings_of(folder: Path) -> dict[str, Any]:
    """What `config.json` of a folder says.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/config.json cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{folder}/config.json holds no settings")
    return settings


_OF_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""What holds an image processor, the usual file first: without one transformers looks for the folder in its hub."""


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """Settings, a processor or a tokenizer of a folder.

    Raises:
        ModelError: the folder holds none.
    """
    if kind.__name__ == "AutoImageProcessor" and not any((folder / name).is_file() for name in _OF_PROCESSOR):
        raise ModelError(
            f"{folder} has no {_OF_PROCESSOR[0]}, which says how the network wants its images. Copy it from the model "
            "that this one was trained from, or write it there: "
            f"transformers.AutoImageProcessor.from_pretrained(THAT_MODEL).save_pretrained({str(folder)!r})"
        )
    return _from_pretrained(kind, folder, **options)


def load_network(kind: Any, folder: Path) -> Any:
    """A network of a folder with its weights, in float32 whatever they are stored in.

    Raises:
        ModelError: the folder holds none, or its weights do not cover the network.
    """
    options: dict[str, Any] = {_dtype_option(): torch.float32, "output_loading_info": True}
    stored = {"use_safetensors": True} if any(folder.glob("*.safetensors")) else {}
    network, found = _from_pretrained(kind, folder, **stored, **options)
    missing = _missing(found)
    if missing and (state := _state_without_prefix(folder)) is not None:
        options |= {"config": network.config, "state_dict": state}
        network, found = _from_pretrained(type(network), None, **options)
        missing = _missing(found)
    if missing:
        surplus = sorted(found["unexpected_keys"])
        also = f"; {len(surplus)} surplus: {name_some(surplus)}" if surplus else ""
        raise ModelError(
            f"the weights in {folder} do not cover the network, a {type(network).__name__}. {len(missing)} missing: "
            f"{name_some(missing)}{also}. What is missing would be random; take the folder of a model that was trained "
            "for this task"
        )
    refuse_not_finite(network, source=folder)
    return network


def _missing(found: dict[str, Collection[str]]) -> list[str]:
    return sorted(key for key in found["missing_keys"] if not _NOT_USED.search(key))


def _state_without_prefix(folder: Path) -> dict[str, torch.Tensor] | None:
    """The weights of a folder, without a word of a trainer's, such as `module.`, that all keys begin with."""
    files = weight_files(folder)
    if len(files) != 1:  # of several, each says only of its own keys what they begin with
        return None
    return read_state_dict(files[0])


def _dtype_option() -> str:
    """What `from_pretrained` calls the dtype: it was renamed in 4.56."""
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", transformers().__version__))
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def _from_pretrained(kind: Any, folder: Path | None, **options: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = None if folder is None else str(folder)
            return kind.from_pretrained(name, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # whatever is wrong with files of others: OSError, ValueError, KeyError, ImportError ...
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{folder} cannot be used as a {kind.__name__}: {reason}") from error

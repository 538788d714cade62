"""Which file holds the score map of which image, in a folder that another method wrote.

It is named after the image, see `oodray.datasets.named_files`. Behind the name stands nothing, or what an evaluator
appends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from oodray.datasets.layout import CAMERA
from oodray.datasets.named_files import NamedFiles, names_of
from oodray.errors import DatasetError

ENDINGS = ("", "_dood_scores", "_anomaly", "_score", "_scores", "_conf", f"{CAMERA}_conf")
"""What stands after the image's name: nothing, what the evaluators of ADE-OoD, Fishyscapes and BRAVO expect, or plain
words."""

SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff", ".hdf5", ".h5", ".pt", ".pth", ".mat"})
"""Suffixes of score files, in any case."""

_ARCHIVE = re.compile(r"(?<=.)\.(tar(\.\w+)?|t[bgx]z2?)$", re.IGNORECASE)
_PLAIN_WORDS = frozenset(
    {
        "anomaly_p",
        "anomaly_scores",
        "maps",
        "output",
        "outputs",
        "pred",
        "preds",
        "predictions",
        "results",
        "score_maps",
    }
    | {"scores", "test", "val", "validation"}
)
_MOST_OFFERED = 10
_SHORT = 5  # letters that a part of a dataset's name may have by chance


def find_score_files(
    folder: Path, image_ids: Iterable[str], label_uris: Mapping[str, str | None] | None = None
) -> dict[str, Path]:
    """The score file of each image that has one.

    Args:
        folder: with the files, at any depth.
        image_ids: of the images.
        label_uris: where the label of each image lies, whose name may say how its score file is called.

    Raises:
        DatasetError: the folder is not there or holds several methods, no image has a file, one has two, or a file may
            be of two images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; name the one with the score maps")
    files = NamedFiles.of("score map", ENDINGS, _files_below(folder))
    names = {image_id: names_of(image_id, (label_uris or {}).get(image_id)) for image_id in image_ids}
    found = files.of_images(names)
    _refuse_several(folder, found)
    files.refuse_shared(names, found)
    if any(found.values()):
        return {image_id: paths[0] for image_id, paths in found.items() if paths}
    image_id, of_image = next(iter(names.items()))
    examples = ", ".join([*sorted(files.by_path)[:3], "..."]) if files.by_path else "none at all"
    raise DatasetError(
        f"no score map below {folder} is named after an image: expected is {image_id.rpartition('/')[2]}.npy or "
        f"{of_image[-1]}_anomaly.npy, for example (also {', '.join(sorted(SUFFIXES - {'.npy'}))}); there are {examples}"
    )


def method_name(folder: Path, dataset: str) -> str:
    """The method whose scores a folder holds: the last part of its path that names neither a dataset nor its content.

    >>> method_name(Path("/out/anomaly_p/RbA/AnomalyTrack-validation"), "road-anomaly-21")
    'RbA'
    >>> method_name(Path("/data/mine/scores"), "ade-ood")
    'mine'
    >>> method_name(Path("/out/run-maps/mine.v2.tar.gz"), "ade-ood")  # a tar, unpacked
    'mine.v2'
    """
    plain = "".join(character for character in dataset.lower() if character.isalnum())
    for part in (_ARCHIVE.sub("", part) for part in reversed(folder.parts[1:])):
        word = "".join(character for character in part.lower() if character.isalnum())
        known = plain in word or (len(word) > _SHORT and word in plain)
        is_dataset = known or "track" in word or word.startswith(("fishyscapes", "lostandfound"))
        if part.lower() not in _PLAIN_WORDS and not is_dataset:
            return part
    return _ARCHIVE.sub("", folder.name)


def _refuse_several(folder: Path, found: Mapping[str, Sequence[Path]]) -> None:
    """Refuse two files of one image; where they are in folders beside each other, these are several methods'."""
    several = {image_id: files for image_id, files in found.items() if len(files) > 1}
    if not several:
        return
    image_id, files = next(iter(several.items()))
    methods = sorted({file.relative_to(folder).parts[0] for group in several.values() for file in group})
    inside = {file.relative_to(folder).parts[0] for file in files}
    if len(inside) == len(files) and all((folder / method).is_dir() for method in methods):
        offered = ", ".join(methods[:_MOST_OFFERED]) + (", ..." if len(methods) > _MOST_OFFERED else "")
        raise DatasetError(
            f"{folder} holds the score maps of several methods: {offered}; import them one by one, "
            f"{folder / methods[0]} to begin with"
        )
    raise DatasetError(f"two score maps belong to {image_id}: {files[0]} and {files[1]}; remove one of them")


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """The score files of a folder, at any depth, each with its path below it, without suffix; not hidden ones."""
    try:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in inside.parts)
            if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                yield inside.with_suffix("").as_posix(), path
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename or folder}: {error.strerror}") from error

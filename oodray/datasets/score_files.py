"""Which file holds the score map of which image, in a folder that another method wrote.

A file belongs to an image by its name: the image's id or the last part of it, its frame (without `_leftImg8bit`), or
the name or number of its label as Fishyscapes counts them. Behind it stands nothing, or what an evaluator appends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from oodray.datasets.layout import CAMERA
from oodray.errors import DatasetError

ENDINGS = ("", "_dood_scores", "_anomaly", "_score", "_scores", "_conf", f"{CAMERA}_conf")
"""What stands after the image's name: nothing, what the evaluators of ADE-OoD, Fishyscapes and BRAVO expect, or plain
words."""

SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff", ".hdf5", ".h5", ".pt", ".pth", ".mat"})
"""Suffixes of score files, in any case."""

_LABEL = "_labels"
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
        DatasetError: the folder is not there or holds several methods, no image has a file, or one has two.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; name the one with the score maps")
    by_name = _files_by_name(folder)
    wanted = list(image_ids)
    found = {image_id: _files_of(names_of(image_id, (label_uris or {}).get(image_id)), by_name) for image_id in wanted}
    _refuse_several(folder, found)
    if any(found.values()):
        return {image_id: files[0] for image_id, files in found.items() if files}
    name = wanted[0].rpartition("/")[2]
    examples = ", ".join([*sorted(by_name)[:3], "..."]) if by_name else "none at all"
    raise DatasetError(
        f"no score map below {folder} is named after an image: expected is {name}.npy or {name}_anomaly.npy, for "
        f"example (also {', '.join(sorted(SUFFIXES - {'.npy'}))}); there are {examples}"
    )


def names_of(image_id: str, label_uri: str | None = None) -> list[str]:
    """What the score file of an image may be called, without an ending, the likeliest first.

    >>> names_of("leftImg8bit/train/04_A_000030_leftImg8bit", "/fs/labels/0003_04_A_000030_labels.png")[1:]
    ['04_A_000030_leftImg8bit', '04_A_000030', '0003_04_A_000030', '0003']
    """
    last = image_id.rpartition("/")[2]
    names = [image_id, last, last.removesuffix(CAMERA), last.removesuffix("_rgb")]
    label = PurePosixPath(label_uri or "").stem
    number, _, frame = label.removesuffix(_LABEL).partition("_")
    if label.endswith(_LABEL) and number.isdigit() and frame:
        names += [f"{number}_{frame}", number]
    return list(dict.fromkeys(names))


def method_name(folder: Path, dataset: str) -> str:
    """The method whose scores a folder holds: the last part of its path that names neither a dataset nor its content.

    >>> method_name(Path("/out/anomaly_p/RbA/AnomalyTrack-validation"), "road-anomaly-21")
    'RbA'
    >>> method_name(Path("/data/mine/scores"), "ade-ood")
    'mine'
    """
    plain = "".join(character for character in dataset.lower() if character.isalnum())
    for part in reversed(folder.parts[1:]):
        word = "".join(character for character in part.lower() if character.isalnum())
        known = plain in word or (len(word) > _SHORT and word in plain)
        is_dataset = known or "track" in word or word.startswith(("fishyscapes", "lostandfound"))
        if part.lower() not in _PLAIN_WORDS and not is_dataset:
            return part
    return folder.name


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


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Score files by their path below the folder, without suffix, and by their name alone."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    try:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                files[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    for name in list(files):
        last = name.rpartition("/")[2]
        if last != name:
            files[last].extend(path for path in files[name] if path not in files[last])
    return dict(files)


def _files_of(names: Sequence[str], by_name: Mapping[str, Sequence[Path]]) -> list[Path]:
    """The files of the first of some names that has any."""
    for name in names:
        files = [path for ending in ENDINGS for path in by_name.get(name + ending, [])]
        if files:
            return files
    return []

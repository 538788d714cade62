"""Which file holds the score map of which image, in a folder that another method wrote.

A file belongs to an image by its name: the image's id or the last parts of it, its frame (without `_leftImg8bit`), or
the name or number of its label as Fishyscapes counts them. Behind it stands nothing, or what an evaluator appends.
Less than the whole id names an image only where no other image has that name, too.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from oodray.datasets.layout import CAMERA
from oodray.errors import DatasetError

ENDINGS = ("", "_dood_scores", "_anomaly", "_score", "_scores", "_conf", f"{CAMERA}_conf")
"""What stands after the image's name: nothing, what the evaluators of ADE-OoD, Fishyscapes and BRAVO expect, or plain
words."""

SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff", ".hdf5", ".h5", ".pt", ".pth", ".mat"})
"""Suffixes of score files, in any case."""

_LABEL = "_labels"
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
    files = _Files.below(folder)
    wanted = {image_id: names_of(image_id, (label_uris or {}).get(image_id)) for image_id in image_ids}
    found = _found(wanted, files)
    _refuse_several(folder, found)
    _refuse_shared(wanted, found, files)
    if any(found.values()):
        return {image_id: paths[0] for image_id, paths in found.items() if paths}
    name = next(iter(wanted)).rpartition("/")[2]
    examples = ", ".join([*sorted(files.by_path)[:3], "..."]) if files.by_path else "none at all"
    raise DatasetError(
        f"no score map below {folder} is named after an image: expected is {name}.npy or {name}_anomaly.npy, for "
        f"example (also {', '.join(sorted(SUFFIXES - {'.npy'}))}); there are {examples}"
    )


def names_of(image_id: str, label_uri: str | None = None) -> list[str]:
    """What the score file of an image may be called, without an ending, the likeliest first.

    >>> names_of("train/04_A_000030_leftImg8bit", "/fs/labels/0003_04_A_000030_labels.png")[1:]
    ['04_A_000030_leftImg8bit', 'train/04_A_000030', '04_A_000030', '0003_04_A_000030', '0003']
    """
    names = ends_of(image_id)
    names += [name.removesuffix(camera) for camera in (CAMERA, "_rgb") for name in names]
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


def ends_of(path: str) -> list[str]:
    """A path, and what is left of it without its first folders.

    >>> ends_of("a/b/c")
    ['a/b/c', 'b/c', 'c']
    """
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


@dataclass(frozen=True)
class _Files:
    """Score files, by name without suffix.

    Attributes:
        by_path: by their path below the folder.
        by_end: by every end of that path, the whole of it as well.
    """

    by_path: Mapping[str, Sequence[Path]]
    by_end: Mapping[str, Sequence[Path]]

    @classmethod
    def below(cls, folder: Path) -> _Files:
        """All of a folder, at any depth, but hidden ones."""
        by_path: defaultdict[str, list[Path]] = defaultdict(list)
        by_end: defaultdict[str, list[Path]] = defaultdict(list)
        try:
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder)
                hidden = any(part.startswith(".") for part in inside.parts)
                if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                    name = inside.with_suffix("").as_posix()
                    by_path[name].append(path)
                    for end in ends_of(name):
                        by_end[end].append(path)
        except OSError as error:
            raise DatasetError(f"cannot read {error.filename or folder}: {error.strerror}") from error
        return cls(dict(by_path), dict(by_end))


def _found(wanted: Mapping[str, Sequence[str]], files: _Files) -> dict[str, list[Path]]:
    """The files of each image: those of the first of its names that has any.

    What is called as a whole id is of that image alone, and a name that two images share is of neither.
    """
    shared = {name for name, count in Counter(name for names in wanted.values() for name in names).items() if count > 1}
    of_id = {path: image_id for image_id in wanted for path in _with_ending(image_id, files.by_path)}

    def of(image_id: str, name: str) -> list[Path]:
        if name in shared and name != image_id:
            return []
        return [path for path in _with_ending(name, files.by_end) if of_id.get(path, image_id) == image_id]

    return {
        image_id: next((paths for name in names if (paths := of(image_id, name))), [])
        for image_id, names in wanted.items()
    }


def _with_ending(name: str, files: Mapping[str, Sequence[Path]]) -> list[Path]:
    return [path for ending in ENDINGS for path in files.get(name + ending, ())]


def _refuse_shared(wanted: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[Path]], files: _Files) -> None:
    """Refuse a file that two images would get, and one without an image whose name is that of two."""
    of_file: dict[Path, str] = {}
    for image_id, paths in found.items():
        for path in paths:
            if (other := of_file.setdefault(path, image_id)) != image_id:
                raise _may_be_of(path, other, image_id)
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for image_id, names in wanted.items():
        for name in names:
            owners[name].append(image_id)
    for name, images in owners.items():
        lacking = [image_id for image_id in images if not found[image_id]]
        if len(images) > 1 and lacking:
            for path in _with_ending(name, files.by_path):
                if path not in of_file:
                    raise _may_be_of(path, *images[:2])


def _may_be_of(path: Path, one: str, other: str) -> DatasetError:
    return DatasetError(
        f"the score map {path} may be of {one} as well as of {other}: name it after the whole id of its image, "
        f"{one}{path.suffix} or {other}{path.suffix}, folders included"
    )

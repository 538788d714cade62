"""What can be found in a dataset under inspection, one class for each kind: facts, which `oodray.report` words.

A *finding* is wrong; an *oddity* is unusual, and may be as it should.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class WrongCount:
    """There are not as many images as were published; `warning` is that of `count_warning`."""

    warning: str


@dataclass(frozen=True)
class BrokenSample:
    """The image or the label of a sample cannot be used; `reason` is the message of the error."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class AbsentClass:
    """There are labels, but no pixel has this one, which the dataset should have."""

    label: int


@dataclass(frozen=True)
class WhiteMasks:
    """The labels hold 0 and 255 alone, and 255 is ignored; `meaning` says how white is read as OoD."""

    meaning: str


@dataclass(frozen=True)
class Noticed:
    """What was noticed while the files were searched, in words, see `oodray.datasets.remarks`."""

    text: str


@dataclass(frozen=True)
class HiddenLabels:
    """So many images have no label, or one that ignores every pixel; the others have labels that say something."""

    images: int


@dataclass(frozen=True)
class OddStorage:
    """So many images are stored in a way that other tools may read differently, see `storage_oddities`."""

    images: int
    what: str


@dataclass(frozen=True)
class OddSizes:
    """So many images have another size than the published one, which is `(height, width)`."""

    images: int
    published: tuple[int, int]


@dataclass(frozen=True)
class MixedRepackings:
    """OoD pixels have several codes, each of another repacking: the files are of more than one origin."""

    codes: tuple[int, ...]


@dataclass(frozen=True)
class Repacking:
    """OoD pixels have the code of a repacking, not the original one."""

    code: int
    original: int


@dataclass(frozen=True)
class OddShare:
    """OoD pixels, in percent of those that count; of the original files `published` percent are."""

    percent: float
    published: float


Finding: TypeAlias = WrongCount | BrokenSample | AbsentClass | WhiteMasks | Noticed
Oddity: TypeAlias = Noticed | HiddenLabels | OddStorage | OddSizes | MixedRepackings | Repacking | OddShare

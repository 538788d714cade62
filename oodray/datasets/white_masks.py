"""Masks of 0 and 255 where 255 means ignore: nothing in them is OoD, and a run over them gives no metric."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from oodray.datasets.images import decode_codes, read_bytes
from oodray.datasets.layout import Layout
from oodray.errors import ImageError

BLACK, WHITE = 0, 255

_LOOKED_AT = 4
"""Labels that are read before a run starts: a set of white masks shows it in any of them."""


def are_white_masks(layout: Layout, codes: Iterable[int]) -> bool:
    """Whether all codes of a dataset's labels are black and white, and white is ignored although something is OoD."""
    meaning = layout.label_codes
    return set(codes) == {BLACK, WHITE} and WHITE in meaning.ignore and bool(meaning.ood)


def white_masks_warning(layout: Layout, label_uris: Iterable[str | None]) -> str | None:
    """A warning where the first labels of a dataset are white masks, see `are_white_masks`.

    A label that cannot be read is left to the run, where it becomes an error of its image.
    """
    looked_at = [*islice((uri for uri in label_uris if uri is not None), _LOOKED_AT)]
    codes: set[int] = set()
    for uri in looked_at:
        try:
            codes.update(np.unique(decode_codes(read_bytes(uri))).tolist())
        except ImageError:
            continue
    if not are_white_masks(layout, codes):
        return None
    labels = "first label holds" if len(looked_at) == 1 else f"first {len(looked_at)} labels hold"
    return f"the {labels} 0 and 255 alone, {meaning_of_white(layout)}"


def meaning_of_white(layout: Layout) -> str:
    """What white means, and how it is read as OoD."""
    ood = min(layout.label_codes.ood)
    remedy = f"pass --dataset {layout.white_is_ood}" if layout.white_is_ood else f"write it as {ood}"
    return (
        f"and here 255 means ignore, so that no pixel of them is OoD, which is {ood}. If 255 is what is OoD, {remedy}"
    )

"""What to do next after a run, in words: for images without labels, and where tau does not fit."""

from __future__ import annotations

from oodray.storage.place import Place

TOO_MUCH = 0.5
"""Mean share of an image that is OoD, from which on the network or tau does not fit the images."""


def misfit(mean_ood_fraction: float | None) -> str | None:
    """What is wrong, and what to try, where more than half of an average image is OoD; None elsewhere.

    >>> misfit(0.2) is None, misfit(0.63).partition(":")[0]
    (True, '63% of an average image is OoD')
    """
    if mean_ood_fraction is None or mean_ood_fraction <= TOO_MUCH:
        return None
    return (
        f"{mean_ood_fraction:.0%} of an average image is OoD: the network or tau does not fit these images. Try --tau "
        "auto --calibrate-on DIR with images that hold nothing unknown (`oodray calibrate` says more), a smaller "
        "--tau, or a network that was trained on images like these (`oodray models`)."
    )


NOTHING_FOUND = (
    "no image has a region that is OoD at this setting. A larger --tau or a smaller --ood-ratio calls more; the image "
    "scores rank the images all the same."
)
"""What is said of a run without labels whose masks are all empty."""


def next_commands(out: Place) -> list[tuple[str, str]]:
    """Commands that go on from a results folder, each with what it does."""
    return [
        (f"oodray report {out}", "one HTML page with everything that was found"),
        (f"oodray show {out} --top 10", "pictures of the ten most anomalous images"),
        (f"oodray export {out} --to DIR --format png", "masks as files; also coco, labelme, yolo-seg and others"),
    ]

"""What counts as near in a sequence."""

from __future__ import annotations

from oodray.datasets.sequence import Sequences


def test_no_gap_reaches_across_folders() -> None:
    ids = ["a/00", "a/01", "a/02", "b/00", "b/01", "a/03"]
    frames = Sequences(ids, [f"s3://bucket/{name}.png" for name in ids])
    assert frames.around("a/02", 1) == ("a/01", "a/02", "a/03")  # b's images stand between them in the manifest
    assert frames.around("a/00", 2) == ("a/00", "a/01", "a/02")
    assert frames.around("b/01", 9) == ("b/00", "b/01")
    assert frames.around("a/01", 0) == ("a/01",)
    assert frames.around("elsewhere", 3) == ("elsewhere",)

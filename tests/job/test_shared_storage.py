from __future__ import annotations

from pathlib import Path

from oodray.job.shared_storage import absent


def test_the_first_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    places = {"--root": str(tmp_path), "the weights": str(tmp_path / "a.pth"), "--out": str(tmp_path / "out")}
    assert absent(places) == "the weights"
    (tmp_path / "a.pth").touch()
    assert absent(places) == "--out"
    (tmp_path / "out").mkdir()
    assert absent(places) is None


def test_a_place_that_may_not_be_looked_at_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert absent({"--root": str(tmp_path / "file" / "below")}) == "--root"

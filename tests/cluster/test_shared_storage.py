from __future__ import annotations

import os
from pathlib import Path

import pytest

from oodray.cluster.shared_storage import lacking

SHARE = (
    "all nodes must share it, at the same path. "
    "Mount it there, or name a place in an object store, such as s3://bucket/folder"
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mark").touch()
    return out


def asked(out: Path, **places: Path) -> str | None:
    return lacking({name: str(place) for name, place in places.items()}, str(out / "mark"), str(out))


def test_the_first_place_that_is_not_there_is_named(tmp_path: Path, out: Path) -> None:
    weights = tmp_path / "a.pth"
    assert asked(out, root=tmp_path, weights=weights) == f"does not see weights, {weights}: {SHARE}"
    weights.touch()
    assert asked(out, root=tmp_path, weights=weights) is None
    assert [path.name for path in out.iterdir()] == ["mark"]


def test_a_folder_of_the_same_name_is_another_one(out: Path) -> None:
    (out / "mark").unlink()
    assert asked(out) == f"does not see --out, {out}: {SHARE}"


def test_a_place_that_may_not_be_looked_at_is_not_there(tmp_path: Path, out: Path) -> None:
    (tmp_path / "file").touch()
    assert asked(out, root=tmp_path / "file" / "below") == f"does not see root, {tmp_path}/file/below: {SHARE}"


def test_a_folder_that_may_not_be_written_to_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "touch", refuse)
    problem = f"cannot write to --out, {out} (Read-only file system): mount it there for writing"
    assert str(asked(out)).startswith(problem)

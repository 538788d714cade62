from __future__ import annotations

from pathlib import Path

import pytest

from oodray.errors import RunError
from oodray.storage.atomic import TEMPORARY_FILES, remove_leftovers, replacing


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_two_writers_do_not_share_a_name(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with replacing(target) as first, replacing(target) as second:
        assert first != second
        for temporary in (first, second):
            assert temporary.parent == tmp_path
            temporary.write_text(temporary.name)
    assert target.read_text() == first.name  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]


def test_after_an_error_all_is_as_before(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")

    def write_half() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("where", ["folder", "file/a.txt", "absent"])
def test_what_cannot_be_written_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))

    def write() -> None:
        with replacing(tmp_path / where) as temporary:
            if where != "absent":  # there, the block forgets to write
                temporary.touch()

    with pytest.raises(RunError, match=f"cannot write {tmp_path / where}: "):
        write()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a" * 255, "道" * 85, ".hidden", "a b.tar.gz"])
def test_any_name_will_do_and_what_is_left_over_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.touch()
        assert list(tmp_path.glob(TEMPORARY_FILES)) == [temporary]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("recursive", "left"), [(False, {"a.txt", "deep", "deep/.b.x.tmp"}), (True, {"a.txt", "deep"})]
)
def test_what_killed_processes_left_is_removed_and_nothing_else(
    tmp_path: Path, recursive: bool, left: set[str]
) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", ".a.txt.x.tmp", "deep/.b.x.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, recursive=recursive)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == left
    remove_leftovers(tmp_path / "absent", recursive=recursive)

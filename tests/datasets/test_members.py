from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import packed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oodray.datasets.images import read_bytes, read_label
from oodray.datasets.members import Lost, Member, TableCell, TarMember, file_of, member_of
from oodray.errors import ImageError

NAMES = st.text(st.characters(codec="utf-8"), min_size=1)


@given(
    st.one_of(
        st.builds(TarMember, NAMES, NAMES, st.integers(0), st.integers(0)),
        st.builds(TableCell, NAMES, NAMES, st.integers(0)),
        st.builds(Lost, NAMES, NAMES),
    )
)
def test_an_address_names_one_thing(member: Member) -> None:
    assert member_of(str(member)) == member
    assert file_of(str(member)) == member.path


@pytest.mark.parametrize("uri", ["/a/tar:b#c@1+2", "s3://bucket/a.tar", "", "/data/x.parquet#image[1]", "tar:/a.tar"])
def test_what_is_no_such_address_is_that_of_a_file(uri: str) -> None:
    assert member_of(uri) is None
    assert file_of(uri) == uri


def cells(path: Path, column: str, rows: int) -> list[str]:
    return [str(TableCell(str(path), column, row)) for row in range(rows)]


@pytest.mark.parametrize("plain", [False, True])
def test_cells_are_read_in_any_order_by_many_threads(plain: bool, tmp_path: Path) -> None:
    images = [bytes([row]) * 10 for row in range(50)]
    masks = [None if row % 3 else bytes([row]) for row in range(50)]
    # Groups of 20: more rows than are read at once.
    path = packed.parquet(tmp_path / "a.parquet", images, masks, plain=plain, rows_of_a_group=20)
    asked = random.Random(0).choices(range(50), k=400)
    image_uris, mask_uris = cells(path, "image", 50), cells(path, "mask", 50)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda row: read_bytes(image_uris[row]), asked)) == [images[row] for row in asked]
        assert list(threads.map(lambda row: read_label(mask_uris[row]), asked)) == [masks[row] for row in asked]


def test_a_file_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    path = packed.parquet(tmp_path / "a.parquet", [b"old", b"older"])
    [uri, _] = cells(path, "image", 2)
    assert read_bytes(uri) == b"old"
    packed.parquet(path, [b"new"])
    assert read_bytes(uri) == b"new"


def test_what_a_cell_lacks_is_said(tmp_path: Path) -> None:
    path = packed.parquet(tmp_path / "a.parquet", [b"1", None])
    first, second, beyond = cells(path, "image", 3)
    with pytest.raises(ImageError, match=r"cannot read .*image\[1\]: it is empty there"):
        read_bytes(second)
    with pytest.raises(ImageError, match=r"cannot read row 2 of the column image in .*a\.parquet: it has 2 rows"):
        read_bytes(beyond)
    assert read_bytes(first) == b"1"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ImageError, match=r"cannot read row 0 of the column image in .*a\.parquet: "):
        read_bytes(first)
    path.unlink()
    with pytest.raises(ImageError, match=r"cannot read row 0 of .*a\.parquet: No such file"):
        read_bytes(first)


def test_a_damaged_row_group_spoils_its_own_rows(tmp_path: Path) -> None:
    contents = [random.Random(row).randbytes(3000) for row in range(9)]
    path = packed.parquet(tmp_path / "a.parquet", contents)
    whole = path.read_bytes()
    at = whole.index(contents[4][:50]) - 60  # the header of the page of rows 3 to 5
    path.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
    found, reasons = [], list[str]()
    for uri in cells(path, "image", 9):
        try:
            found.append(read_bytes(uri))
        except ImageError as error:
            reasons.append(str(error))
    assert found == contents[:3] + contents[6:]
    assert all(f"row {row} of the column image in {path}" in reasons[row - 3] for row in (3, 4, 5))


def test_a_path_in_place_of_bytes_is_not_followed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = {"bytes": None, "path": "/etc/passwd"}
    pq.write_table(pa.table({"image": pa.array([cell], packed.HF_IMAGE)}), tmp_path / "a.parquet")
    with pytest.raises(ImageError, match=r"row 0 .* holds no bytes, only the path /etc/passwd: write the file with"):
        read_bytes(cells(tmp_path / "a.parquet", "image", 1)[0])


def test_members_of_a_shard_that_was_cut(tmp_path: Path) -> None:
    path = packed.tar(tmp_path / "a.tar", [("0.jpg", b"abc"), ("1.jpg", b"defg")])
    first, second = (
        str(TarMember(str(path), name, at, size)) for name, at, size in [("0.jpg", 512, 3), ("1.jpg", 1536, 4)]
    )
    assert (read_bytes(first), read_label(second), read_label(None)) == (b"abc", b"defg", None)
    path.write_bytes(path.read_bytes()[:1538])
    assert read_bytes(first) == b"abc"
    with pytest.raises(
        ImageError, match=r"cannot read 1\.jpg in .*a\.tar: the shard is cut short, it ends 2 bytes too"
    ):
        read_bytes(second)
    path.unlink()
    with pytest.raises(ImageError, match=r"cannot read 0\.jpg in .*a\.tar: No such file or directory"):
        read_bytes(first)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = packed.tar(tmp_path / "a.tar", [])
    with pytest.raises(ImageError, match=f"it has {2**30 + 1} bytes, more than"):
        read_bytes(str(TarMember(str(path), "0.jpg", 0, 2**30 + 1)))

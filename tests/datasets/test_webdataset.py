from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import packed
import pytest

from oodray.datasets.images import read_bytes
from oodray.datasets.layouts import get_layout
from oodray.datasets.remarks import remarks
from oodray.errors import DatasetError, ImageError

SHARDS = get_layout("webdataset")


def read(root: Path) -> dict[str, tuple[bytes, bytes | None]]:
    """What the samples hold, by id."""
    return {
        sample.image_id: (
            read_bytes(sample.image_uri),
            None if sample.label_uri is None else read_bytes(sample.label_uri),
        )
        for sample in SHARDS.find(root)
    }


def test_images_and_labels_by_key(tmp_path: Path) -> None:
    names = "0.jpg 0.png 0.json 1.JPEG 2.webp 2.png 3.png 3.label.png 4.png 4.mask.png 5.png 5.seg.png 6.png 7.cls"
    packed.tar(tmp_path / "a.tar", [(name, name.encode()) for name in names.split()])
    # The files of a key need not follow each other, and names may have folders and dots.
    others = ["x/0.5.seg.png", "y.png", "x/0.5.png", "x/.hidden.jpg", "._y.jpg", "y.jpg", "z.jpg", "z.seg.png"]
    packed.tar(tmp_path / "deep/b.tar", [(name, name.encode()) for name in others])
    assert read(tmp_path) == {
        "a/0": (b"0.jpg", b"0.png"),
        "a/1": (b"1.JPEG", None),
        "a/2": (b"2.webp", b"2.png"),
        "a/3": (b"3.png", b"3.label.png"),
        "a/4": (b"4.png", b"4.mask.png"),
        "a/5": (b"5.png", b"5.seg.png"),
        "a/6": (b"6.png", None),
        "deep/b/x/0.5": (b"x/0.5.png", b"x/0.5.seg.png"),
        "deep/b/y": (b"y.jpg", b"y.png"),
        "deep/b/z": (b"z.jpg", b"z.seg.png"),
    }


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_any_length_in_every_form_of_tar(form: int, tmp_path: Path) -> None:
    long = "folder/" * (20 if form == tarfile.USTAR_FORMAT else 60) + "ä" * 30
    packed.tar(tmp_path / "a.tar", [(f"{long}.jpg", b"abc"), ("b.jpg", b"")], form)
    assert read(tmp_path) == {f"a/{long}": (b"abc", None), "a/b": (b"", None)}


def heard(root: Path) -> list[str]:
    with remarks() as made:
        SHARDS.find(root)
    return [remark.text for remark in made]


def test_files_that_are_neither_image_nor_label_are_told(tmp_path: Path) -> None:
    plain = "0.jpg 0.png 0.json 1.png 1.mask.png 2.cls __key__ .mask.png"
    packed.tar(tmp_path / "plain.tar", [(name, b"") for name in plain.split()])
    assert heard(tmp_path) == []
    names = "17.rgb.png 17.mask.png 18.tif 18.seg.png 19.HEIC 20.jpg 20.png 20.seg.png 21.mask.jpg"
    packed.tar(tmp_path / "a.tar", [(name, b"") for name in names.split()])
    packed.tar(tmp_path / "b.tar", [("k.seg.png", b"")])
    told = heard(tmp_path)
    assert [text.partition(")")[0] for text in told] == [
        "3 files (a.tar: 17.mask.png, a.tar: 18.seg.png, b.tar: k.seg.png",
        "2 files (a.tar: 18.tif, a.tar: 19.HEIC",
        "1 file (a.tar: 20.seg.png",
        "1 file (a.tar: 21.mask.jpg",
    ]
    assert "left out, a label without an image of its key" in told[0]
    with pytest.raises(DatasetError, match=r"no images below .*; 1 file \(b\.tar: k\.seg\.png\) left out"):
        SHARDS.find(tmp_path / "b.tar")


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.jpg", "a/../x.png", "a//x.png"])
def test_a_name_that_leads_out_loses_its_image_alone(name: str, tmp_path: Path) -> None:
    packed.tar(tmp_path / "a.tar", [("0.jpg", b"0"), (name, b"1"), ("2.jpg", b"2")])
    samples = SHARDS.find(tmp_path)
    good = [sample for sample in samples if sample.image_uri.startswith("tar:")]
    assert [read_bytes(sample.image_uri) for sample in good] == [b"0", b"2"]
    [lost] = [sample for sample in samples if sample not in good]
    with pytest.raises(ImageError, match="leads out of the results"):
        read_bytes(lost.image_uri)
    image_id = lost.image_id
    assert image_id.startswith("a/")
    assert image_id.count("/") == 1
    assert ".." not in image_id.split("/")


def test_a_root_may_be_one_shard(tmp_path: Path) -> None:
    for name in "ab":
        packed.tar(tmp_path / f"{name}.tar", [("0.jpg", b"1")])
    assert list(read(tmp_path / "b.tar")) == ["b/0"]


def test_shards_of_one_split(tmp_path: Path) -> None:
    for name in ("test-0", "latest-0", "train/0", "test/1"):
        packed.tar(tmp_path / f"{name}.tar", [("0.jpg", b"1")])
    assert [sample.image_id for sample in SHARDS.of_split("test").find(tmp_path)] == ["test-0/0", "test/1/0"]
    with pytest.raises(DatasetError, match=r"no file below .* is of the split 'tests'; did you mean 'test'\?"):
        SHARDS.of_split("tests").find(tmp_path)
    with pytest.raises(DatasetError, match="--split test does not go with --dataset folder"):
        get_layout("folder").of_split("test")


def test_two_images_of_one_key_are_refused(tmp_path: Path) -> None:
    packed.tar(tmp_path / "a.tar", [("0.jpg", b""), ("0.webp", b"")])
    with pytest.raises(DatasetError, match=r"two images have the name 'a/0': tar:.*0\.jpg.* and .*0\.webp"):
        SHARDS.find(tmp_path)


@pytest.mark.parametrize("suffix", [".txt", ".tar"])
def test_no_images_is_an_error_with_the_layout(suffix: str, tmp_path: Path) -> None:
    packed.tar(tmp_path / f"a{suffix}", [("notes.txt", b"")])
    with pytest.raises(DatasetError, match=r"WebDataset shards: no images below .*\nExpected:\n  ROOT/"):
        SHARDS.find(tmp_path)
    with pytest.raises(DatasetError, match="absent does not exist"):
        SHARDS.find(tmp_path / "absent")


def whole(path: Path) -> bytes:
    files = [(f"{index}.jpg", bytes([index]) * 700) for index in range(3)]  # each 512 + 1024 bytes
    return packed.tar(path, files).read_bytes()


SPOILED: dict[str, tuple[Callable[[bytes], bytes], list[str], str]] = {
    "a web page": (lambda content: b"<html>" + bytes(2000), [], "it is no tar file"),
    "empty": (lambda content: b"", [], "it is no tar file"),
    "compressed": (gzip.compress, [], "it is compressed with gzip"),
    "cut in a member": (lambda content: content[: 2 * 1536 + 600], ["0", "1"], r"comes after 2\.jpg .*unexpected end"),
    "cut in a header": (
        lambda content: content[: 2 * 1536 + 100],
        ["0", "1"],
        r"comes after 1\.jpg .*its end has no mark",
    ),
    "cut between members": (
        lambda content: content[: 2 * 1536],
        ["0", "1"],
        r"comes after 1\.jpg .*its end has no mark",
    ),
    "with a header of noise": (
        lambda content: content[:1536] + b"\7" * 512 + content[2048:],
        ["0"],
        r"comes after 0\.jpg .*no header",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_broken_shard_loses_its_own_images_alone(how: str, tmp_path: Path) -> None:
    spoil, left, reason = SPOILED[how]
    (tmp_path / "b.tar").write_bytes(spoil(whole(tmp_path / "b.tar")))
    whole(tmp_path / "a.tar")
    whole(tmp_path / "c.tar")
    samples = {sample.image_id: sample.image_uri for sample in SHARDS.find(tmp_path)}
    sound = {f"{shard}/{index}": bytes([int(index)]) * 700 for shard in "ac" for index in "012"}
    sound |= {f"b/{index}": bytes([int(index)]) * 700 for index in left}
    errors = {}
    for image_id, uri in samples.items():
        try:
            assert read_bytes(uri) == sound.pop(image_id)
        except ImageError as error:
            errors[image_id] = str(error)
    assert sound == {}
    # One row for what is lost, and one for the image that was cut.
    assert set(errors) - {"b/2"} == {"b"}
    with pytest.raises(ImageError, match=rf"images of .*b\.tar are lost: .*{reason}"):
        read_bytes(samples["b"])
    (tmp_path / "a.tar").unlink()
    (tmp_path / "c.tar").unlink()
    if not left:
        with pytest.raises(DatasetError, match=reason):
            SHARDS.find(tmp_path)


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    packed.tar(tmp_path / "elsewhere/b.tar", [("0.jpg", b"1")])
    packed.tar(tmp_path / "root/a.tar", [("0.jpg", b"1")])
    (tmp_path / "root/b.tar").symlink_to(tmp_path / "elsewhere/b.tar")
    with pytest.raises(DatasetError, match=r"root/b\.tar leads outside of the dataset's folder"):
        SHARDS.find(tmp_path / "root")
    assert len(SHARDS.find(tmp_path / "root", allow_outside=True)) == 2


def test_what_is_no_file_in_a_shard_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(DatasetError, match="no images"):
        SHARDS.find(tmp_path)

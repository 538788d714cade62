from __future__ import annotations

import fcntl
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets import score_maps
from oodray.datasets.score_files import find_score_files
from oodray.datasets.score_maps import read_scores
from oodray.errors import DatasetError, ImageError

SCORES = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def save_hdf5(path: Path, array: NDArray[Any]) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py reads HDF5; it is an extra")
    with h5py.File(path, "w") as file:
        file.create_dataset("value", data=array.astype(np.float16), compression="gzip")


FORMATS: dict[str, Callable[[Path, NDArray[Any]], None]] = {
    "npy": np.save,
    "npz": lambda path, array: np.savez(path, scores=array, other=array[:1]),
    "tif": lambda path, array: Image.fromarray(array).save(path),
    "hdf5": save_hdf5,
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_was_written_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    FORMATS[suffix](path, SCORES)
    expected = SCORES.astype(np.float16) if suffix == "hdf5" else SCORES
    np.testing.assert_array_equal(read_scores(path), expected.astype(np.float32))


def test_a_png_of_16_bits_holds_shares(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 65535], [32768, 300, 7]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_scores(tmp_path / "a.png"), levels / 65535, rtol=1e-7)


def test_a_map_with_an_axis_of_one_is_a_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SCORES[None, None].astype(np.float64))
    assert read_scores(tmp_path / "a.npy").shape == SCORES.shape


class RanError(Exception):
    """Raised where a pickle would be executed."""


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return RanError, ()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.npy", np.zeros((2, 3, 4)), "shape"),
        ("a.npy", np.zeros((0, 4)), "shape"),
        ("a.npy", np.array([["x"]]), "not numbers"),
        ("a.npy", np.array([[1 + 2j]]), "not numbers"),
        ("a.npy", np.array([[Hostile()]], dtype=object), "cannot read the score map"),
        ("a.npy", pickle.dumps(Hostile()), "cannot read the score map"),
        ("a.npy", b"", "cannot read the score map"),
        ("a.npz", b"PK\x03\x04 cut", "cannot read the score map"),
        ("a.png", b"<html>", "cannot read the score map"),
        ("a.png", np.zeros((2, 2, 3), np.uint8), "a picture in colour"),
        ("a.hdf5", b"\x89HDF\r\n", "cannot read the score map"),
    ],
)
def test_what_is_no_score_map_is_an_error_of_that_image(
    name: str, content: bytes | NDArray[Any], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name.endswith("hdf5"):
        pytest.importorskip("h5py", reason="h5py reads HDF5; it is an extra")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith("png"):
        Image.fromarray(content).save(path)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ImageError, match=problem):
        read_scores(path)


def test_several_arrays_without_a_usual_name_are_not_guessed_at(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", first=SCORES, second=SCORES)
    with pytest.raises(ImageError, match="holds 2 arrays, none named scores"):
        read_scores(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["images/00.npy", "00.npy", "00_anomaly.npy", "00_dood_scores.npy", "deep/00.NPZ"])
def test_a_file_belongs_to_the_image_it_is_named_after(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_score_files(tmp_path, ["images/00", "images/01"]) == {"images/00": path}


def test_the_whole_id_wins_over_its_last_part(tmp_path: Path) -> None:
    for folder in ("t5", "t6"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "300.npy").touch()
    found = find_score_files(tmp_path, ["t5/300", "t6/300"])
    assert found == {"t5/300": tmp_path / "t5" / "300.npy", "t6/300": tmp_path / "t6" / "300.npy"}


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("00.npy", "00_anomaly.npy"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"two score maps belong to images/00: .*00\.npy and .*00_anomaly\.npy"):
        find_score_files(tmp_path, ["images/00"])


def test_no_file_at_all_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "frame7.npy").touch()
    with pytest.raises(DatasetError, match=r"expected is 00\.npy or 00_anomaly\.npy.*there are frame7"):
        find_score_files(tmp_path, ["images/00"])
    with pytest.raises(DatasetError, match="is not a folder"):
        find_score_files(tmp_path / "none", ["images/00"])


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_what_would_unpack_to_too_much_is_refused_before(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, scores=np.zeros((2000, 2000)))
    else:
        save_hdf5(path, np.zeros((2000, 2000)))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(score_maps, "MAX_BYTES", 2000 * 2000 * 8)
    monkeypatch.setattr(score_maps, "MAX_PIXELS", 2000 * 2000 - 1)
    with pytest.raises(ImageError, match=r"an array in the archive has 32000128 bytes|2000, 2000.*, more than"):
        read_scores(path)


def test_pytorch_and_matlab(tmp_path: Path) -> None:
    import torch
    from scipy.io import savemat

    torch.save({"ood_score": torch.from_numpy(SCORES), "semseg": torch.zeros(5, 7)}, tmp_path / "a.pt")
    torch.save(torch.from_numpy(SCORES)[None].bfloat16(), tmp_path / "b.pth")
    savemat(tmp_path / "c.mat", {"anomaly_scores": SCORES})
    np.testing.assert_array_equal(read_scores(tmp_path / "a.pt"), SCORES)
    np.testing.assert_allclose(read_scores(tmp_path / "b.pth"), SCORES, rtol=1e-2)
    np.testing.assert_array_equal(read_scores(tmp_path / "c.mat"), SCORES)


def test_what_a_pt_file_would_execute_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"scores": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(ImageError, match="cannot read the score map"):
        read_scores(tmp_path / "a.pt")


def test_further_files_as_they_are_met(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", anomaly_scores=SCORES, pred_id_labels=np.zeros((5, 7), np.uint8))
    np.testing.assert_array_equal(read_scores(tmp_path / "a.npz"), SCORES)
    Image.fromarray(np.array([[0, 255], [51, 102]], np.uint8)).save(tmp_path / "b.png")
    expected = np.array([[0, 1], [0.2, 0.4]])
    np.testing.assert_allclose(np.asarray(read_scores(tmp_path / "b.png"), np.float64), expected, rtol=1e-6)
    assert score_maps.has_few_levels(tmp_path / "b.png")
    assert not score_maps.has_few_levels(tmp_path / "a.npz")


def test_tiff_of_64_bits(tmp_path: Path) -> None:
    """Pillow writes none: a header and one strip, by hand."""
    import struct

    values = SCORES.astype("<f8")
    tags = [(256, 4, 7), (257, 4, 5), (258, 3, 64), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 5)]
    tags += [(279, 4, values.nbytes), (339, 3, 3)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + directory)
    np.testing.assert_allclose(read_scores(tmp_path / "a.tif"), SCORES, rtol=1e-6)


def test_an_hdf5_file_is_read_while_another_program_holds_a_lock_on_it(tmp_path: Path) -> None:
    """As on a file server that gives no locks, where HDF5 refuses to read."""
    path = tmp_path / "a.hdf5"
    save_hdf5(path, SCORES)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        np.testing.assert_array_equal(read_scores(path), SCORES.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("way", ["link", "virtual", "raw"])
def test_hdf5_scores_in_another_file_are_not_followed(way: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py reads HDF5; it is an extra")
    save_hdf5(tmp_path / "other.hdf5", SCORES)
    SCORES.tofile(tmp_path / "raw")
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        if way == "link":
            file["value"] = h5py.ExternalLink("other.hdf5", "value")
        elif way == "virtual":
            layout = h5py.VirtualLayout(SCORES.shape, np.float16)
            layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "value", SCORES.shape, np.float16)
            file.create_virtual_dataset("value", layout)
        else:
            external = [(str(tmp_path / "raw"), 0, SCORES.nbytes)]
            file.create_dataset("value", SCORES.shape, np.float32, external=external)
    with pytest.raises(ImageError, match=r"holds 0 arrays|takes its scores from other files"):
        read_scores(path)

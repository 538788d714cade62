from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from runs import in_parts
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from typer.testing import CliRunner

from oodray.analysis.evaluation import evaluate_run
from oodray.cli import app
from oodray.errors import ConfigError, DatasetError, ResultsError
from oodray.job.imported_maps import Reading, unpacked
from oodray.job.importing import Import, import_scores, make_import, warnings_of
from oodray.job.units import UnitDone
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_rows

Maps = dict[str, NDArray[Any]]


def label_codes(root: Path) -> Maps:
    return {path.name[:2]: np.asarray(Image.open(path)) for path in sorted((root / "annotations").iterdir())}


@pytest.fixture
def maps(tiny_dataset: Path, tmp_path: Path) -> Maps:
    """Scores of a method that is right more often than not, one file an image."""
    random = np.random.default_rng(5)
    found = {
        name: (random.normal(size=codes.shape) + (codes == 1)).astype(np.float32)
        for name, codes in label_codes(tiny_dataset).items()
    }
    (tmp_path / "mine").mkdir()
    for name, scores in found.items():
        np.save(tmp_path / "mine" / f"{name}.npy", scores)
    return found


def request(root: Path, tmp_path: Path, resize: str | None = None) -> Import:
    return make_import("ade-ood", root, tmp_path / "mine", score=None, reading=Reading(resize=resize))


def imported(request: Import, out: Path) -> tuple[ResultsFolder, list[UnitDone]]:
    folder, done = ResultsFolder(out), list[UnitDone]()
    import_scores(request, folder, done.append)
    return folder, done


def test_scores_are_measured_as_scikit_learn_does(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    folder, done = imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    assert sum(unit.ok for unit in done) == 10
    [metrics] = evaluate_run(folder).scores
    codes = np.concatenate([codes.ravel() for codes in label_codes(tiny_dataset).values()])
    values = np.concatenate([scores.ravel() for scores in maps.values()])[codes != 255]
    truth = codes[codes != 255] == 1
    assert metrics.score == "mine"
    assert metrics.ap == pytest.approx(average_precision_score(truth, values), abs=1e-12)
    assert metrics.auroc == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    [row] = pq.read_table(str(folder.metrics)).to_pylist()
    assert (row["k"], row["tau"], row["ood_ratio"]) == (None, None, None)


@pytest.mark.parametrize("confident", ["near 1", "near 0"])
def test_no_order_is_lost_where_a_network_is_sure(
    confident: str, maps: Maps, tiny_dataset: Path, tmp_path: Path
) -> None:
    """Scores such as -max p of a confident network: of float16 most would be one value."""
    for name, scores in maps.items():
        tiny = np.exp(scores - 18)
        near = tiny if confident == "near 0" else (1 + tiny * 2**12).astype(np.float32)
        np.save(tmp_path / "mine" / f"{name}.npy", near)
    folder, _ = imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    [metrics] = evaluate_run(folder).scores
    codes = np.concatenate([codes.ravel() for codes in label_codes(tiny_dataset).values()])
    values = np.concatenate([np.load(tmp_path / "mine" / f"{name}.npy").ravel() for name in maps])[codes != 255]
    truth = codes[codes != 255] == 1
    assert len(np.unique(values.astype(np.float16))) < 5000 < len(np.unique(values))
    assert metrics.ap == pytest.approx(average_precision_score(truth, values), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
    assert metrics.fpr95 == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)


@pytest.mark.parametrize(("rule", "size"), [("nearest", 2), ("bilinear", 2)])
def test_maps_of_another_size_need_a_named_rule(
    rule: str, size: int, maps: Maps, tiny_dataset: Path, tmp_path: Path
) -> None:
    for name, scores in maps.items():
        np.save(tmp_path / "mine" / f"{name}.npy", scores[::size, ::size])
    _, done = imported(request(tiny_dataset, tmp_path), tmp_path / "refused")
    assert sum(unit.failed for unit in done) == 10
    assert "pass --resize bilinear or --resize nearest" in done[0].errors[0]
    folder, done = imported(request(tiny_dataset, tmp_path, rule), tmp_path / "out")
    assert sum(unit.failed for unit in done) == 0
    codes = label_codes(tiny_dataset)
    values = []
    for name, scores in maps.items():
        small = scores[::size, ::size]
        if rule == "nearest":
            values.append(np.repeat(np.repeat(small, size, 0), size, 1))
        else:
            image = Image.fromarray(small).resize(codes[name].shape[::-1], Image.Resampling.BILINEAR)
            values.append(np.asarray(image))
    flat = np.concatenate([found.ravel() for found in values])
    everything = np.concatenate([found.ravel() for found in codes.values()])
    expected = average_precision_score(everything[everything != 255] == 1, flat[everything != 255])
    assert evaluate_run(folder).scores[0].ap == pytest.approx(expected, abs=1e-9 if rule == "nearest" else 1e-4)


def test_an_image_without_a_map_is_an_error_row(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "03.npy").unlink()
    np.save(tmp_path / "mine" / "04.npy", maps["04"].astype(np.float64) * 1e60)
    asked = request(tiny_dataset, tmp_path)
    assert warnings_of(asked) == ["1 of 10 images have no score map, the first is images/03"]
    folder, done = imported(asked, tmp_path / "out")
    errors = [error for unit in done for error in unit.errors]
    assert [error.partition(":")[0] for error in errors] == ["images/03", "images/04"]
    assert "beyond 3.40282e+38" in errors[1]
    assert (evaluate_run(folder).images, evaluate_run(folder).failed) == (8, 2)


def test_maps_that_were_written_anew_are_refused(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    folder, _ = imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    assert imported(request(tiny_dataset, tmp_path), tmp_path / "out")[1] == []
    np.save(tmp_path / "mine" / "00.npy", -maps["00"])  # of the same size
    with pytest.raises(ResultsError, match=r"the score maps were written anew since.*--overwrite"):
        imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    # Results of before there was a digest are read, and not continued.
    run = folder.read_run()
    del run["identity"]["maps"]
    folder.write_run(run)
    assert evaluate_run(folder).images == 10
    with pytest.raises(ResultsError, match="--overwrite"):
        imported(request(tiny_dataset, tmp_path), tmp_path / "out")


def test_it_continues_and_refuses_another_import(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    asked = request(tiny_dataset, tmp_path)
    folder, _ = imported(asked, tmp_path / "out")
    before = read_rows(folder.parts()).slice(8)  # of the second unit
    in_parts(folder).part(0).unlink()
    _, done = imported(asked, tmp_path / "out")
    assert len(done) == 1
    assert read_rows(folder.parts()).slice(8).equals(before)
    with pytest.raises(ResultsError, match="resize was None, is 'nearest'"):
        imported(request(tiny_dataset, tmp_path, "nearest"), tmp_path / "out")


def test_what_needs_clusters_says_that_there_are_none(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    folder, _ = imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    with pytest.raises(ResultsError, match="imported scores, which have no clusters"):
        folder.clustering_rule()


def test_nan_where_pixels_are_ignored_is_ignored(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    before = imported(request(tiny_dataset, tmp_path), tmp_path / "before")[0]
    codes = label_codes(tiny_dataset)
    for name, scores in maps.items():
        np.save(tmp_path / "mine" / f"{name}.npy", np.where(codes[name] == 255, np.nan, scores))
    folder, done = imported(request(tiny_dataset, tmp_path), tmp_path / "out")
    assert sum(unit.ok for unit in done) == 10
    assert evaluate_run(folder).scores[0].ap == evaluate_run(before).scores[0].ap
    np.save(tmp_path / "mine" / "00.npy", np.full(maps["00"].shape, np.nan))
    _, done = imported(request(tiny_dataset, tmp_path), tmp_path / "wrong")
    assert "NaN or infinity at" in done[0].errors[0]


@pytest.mark.parametrize(
    ("reading", "step"), [(Reading(blur=True), 1), (Reading(resize="bilinear"), 2), (Reading("bilinear", blur=True), 2)]
)
def test_nan_does_not_spread_to_pixels_that_count(
    reading: Reading, step: int, maps: Maps, tiny_dataset: Path, tmp_path: Path
) -> None:
    """A map is 1 left of where nothing counts: whatever is done with it, it stays 1 there."""
    codes = label_codes(tiny_dataset)["00"]
    left = np.arange(codes.shape[1]) < codes.shape[1] // 2 // step * step
    scores = np.broadcast_to(np.where(left, 1.0, np.nan), codes.shape)
    np.save(tmp_path / "mine" / "00.npy", scores[::step, ::step])
    asked = make_import("ade-ood", tiny_dataset, tmp_path / "mine", score=None, reading=reading)
    found = asked.maps("images/00", (codes.shape[0], codes.shape[1]))
    np.testing.assert_allclose(found[:, left], 1, rtol=1e-6)
    assert np.isnan(found[:, ~left]).all(), "a pixel that counts and has no score stays an error"


def test_confidences_are_not_turned_twice(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "00.npy").rename(tmp_path / "mine" / "00_conf.npy")
    with pytest.raises(ConfigError, match=r"--negate does not go with .*00_conf\.npy: .*turned twice"):
        make_import("ade-ood", tiny_dataset, tmp_path / "mine", score=None, reading=Reading(negate=True))


def test_bravos_confidences_are_turned_and_8_bits_are_told(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "bravo").mkdir()
    for name, scores in maps.items():
        shares = 1 / (1 + np.exp(scores))
        Image.fromarray(np.rint(shares * 255).astype(np.uint8)).save(tmp_path / "bravo" / f"{name}_conf.png")
    asked = make_import("ade-ood", tiny_dataset, tmp_path / "bravo", score=None)
    told = " ".join(warnings_of(asked))
    assert "10 score maps are PNGs of 8 bits" in told
    assert "the score is 1 - x" in told
    [turned] = evaluate_run(imported(asked, tmp_path / "out")[0]).scores
    [own] = evaluate_run(imported(request(tiny_dataset, tmp_path), tmp_path / "own")[0]).scores
    assert turned.ap == pytest.approx(own.ap, abs=0.02)


def tar_of(folder: Path, archive: Path, mode: Any = "w") -> Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, "bravo_smiyc/mine")
    return archive


def test_a_tar_is_unpacked_into_a_fresh_folder_of_its_name(maps: Maps, tmp_path: Path) -> None:
    first = unpacked(tar_of(tmp_path / "mine", tmp_path / "mine.v1.tar"), tmp_path / "maps")
    assert {path.name for path in first.rglob("*.npy")} == {f"{name}.npy" for name in maps}
    (tmp_path / "mine" / "00.npy").unlink()
    second = unpacked(tar_of(tmp_path / "mine", tmp_path / "mine.v2.tar"), tmp_path / "maps")
    assert (first.name, second.name) == ("mine.v1.tar", "mine.v2.tar")
    again = unpacked(tar_of(tmp_path / "mine", tmp_path / "mine.v1.tar"), tmp_path / "maps")
    for folder in (second, again):
        assert {path.name for path in folder.rglob("*.npy")} == {f"{name}.npy" for name in maps if name != "00"}
    assert sorted((tmp_path / "maps").iterdir()) == [first, second]


@pytest.mark.parametrize("form", ["", "gz", "bz2", "xz"])
def test_a_damaged_tar_is_told(form: str, maps: Maps, tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "mine", tmp_path / f"mine.tar.{form}", f"w:{form}")
    good = archive.read_bytes()
    middle = len(good) // 2
    noise = bytes(255 - byte for byte in good[middle : middle + 600])
    for content in (b"not a tar", good[:middle], *([good[:middle] + noise + good[middle + 600 :]] if form else [])):
        archive.write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot unpack .*mine\.tar"):
            unpacked(archive, tmp_path / "maps")
    assert not [*(tmp_path / "maps").glob("*"), *(tmp_path / "maps").glob(".*")]


def test_a_submission_as_bravos_server_takes_it_is_told_from_maps(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "1_encoded.bin").write_bytes(b"\0" * 20)
    with pytest.raises(DatasetError, match=r"a submission to BRAVO as it is encoded .* import the \*_conf.png"):
        unpacked(tar_of(tmp_path / "sub", tmp_path / "sub.tar"), tmp_path / "maps")
    assert not (tmp_path / "maps" / "sub.tar").exists()


def test_an_import_that_is_done_says_so(maps: Maps, tiny_dataset: Path, tmp_path: Path) -> None:
    command = ["import-scores", str(tmp_path / "mine"), "--dataset", "ade-ood", "--root", str(tiny_dataset), "--out"]
    first = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    again = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert first.exit_code == again.exit_code == 0
    assert "10/10 images" in first.output
    assert again.output.splitlines()[0] == "10/10 images"


def test_an_unknown_rule_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resize must be one of nearest, bilinear, not 'cubic'"):
        request(tiny_dataset, tmp_path, "cubic")

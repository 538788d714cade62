from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_oracles import METHOD, Pixels, failed_image, failed_row, random_images, write_results
from places import on_disk

import oodray
from oodray.errors import ResultsError, RunError
from oodray.method.rule import Rule
from oodray.results.encoding import write_rows
from oodray.results.folder import ResultsFolder, write_json, write_table
from oodray.results.parts import write_part
from oodray.results.reading import finished_units, read_clusters, read_results, read_rows
from oodray.results.rows import RESULT_SCHEMA


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestFolder:
    def test_parts_are_in_the_order_of_the_units(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        for unit in (1_000_000, 999_999, 0, 10, 9):
            write_part(folder, unit, [])
        assert folder.parts() == [folder.part(unit) for unit in (0, 9, 10, 999_999, 1_000_000)]
        assert finished_units(folder) == {0, 9, 10, 999_999, 1_000_000}

    @pytest.mark.parametrize(
        "name",
        [
            "part-000001 (copy).parquet",
            "part-1.parquet",
            "part-0000001.parquet",
            "part-x.parquet",
            "notes.txt",
        ],
    )
    def test_files_of_others_are_no_parts(self, tmp_path: Path, name: str) -> None:
        folder = ResultsFolder(tmp_path)
        write_part(folder, 2, [])
        (folder.results / name).touch()
        assert finished_units(folder) == {2}
        assert folder.parts() == [folder.part(2)]

    def test_a_folder_that_is_not_there_has_no_parts(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path / "none")
        assert folder.parts() == []
        folder.remove_leftovers()
        assert not folder.path.exists()

    def test_leftovers_go_and_all_else_stays(self, tmp_path: Path) -> None:
        folder = write_results(tmp_path, [[failed_image("a")]])
        kept = files(tmp_path)
        for name in (
            ".run.json.abc.tmp",
            ".manifest.parquet.abc.tmp",
            "results/.part-000003.parquet.abc.tmp",
            "pictures/frames/.000.png.abc.tmp",
            "dataset/images/.scene-00.png.abc.tmp",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        folder.remove_leftovers()
        assert files(tmp_path) == kept

    def test_its_paths_stay_where_it_was_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        folder = ResultsFolder("runs/demo")
        monkeypatch.chdir("/")
        assert folder.path == tmp_path / "runs" / "demo"
        assert folder.part(0) == tmp_path / "runs" / "demo" / "results" / "part-000000.parquet"

    def test_creating_it_makes_a_table_without_files(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path / "runs" / "demo")
        for _ in range(2):
            folder.create()
            assert folder.results.is_dir()
            assert folder.parts() == []

    def test_a_file_in_its_place_is_an_error_of_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(RunError, match=r"cannot make the folder .*out/results: Not a directory"):
            ResultsFolder(tmp_path / "out").create()


class TestRunJson:
    def test_comes_back_as_written(self, tmp_path: Path) -> None:
        content = {"config": {"tau": 1.5}, "identity": {"a": None}, "text": "ü"}
        ResultsFolder(tmp_path / "new").write_run(content)
        assert ResultsFolder(tmp_path / "new").read_run() == content

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "is not a results folder: it has no run.json"),
            (b"", "run.json is damaged"),
            (b"{", "run.json is damaged"),
            (b"\xff\xfe", "run.json is damaged"),
            (b"[]", "does not describe a run of oodray"),
            (b'{"config": {}}', "does not describe a run of oodray"),
            (b'{"config": null, "identity": {}}', "does not describe a run of oodray"),
        ],
    )
    def test_others_are_refused(self, tmp_path: Path, content: bytes | None, problem: str) -> None:
        if content is not None:
            (tmp_path / "run.json").write_bytes(content)
        for read in (
            ResultsFolder(tmp_path).read_run,
            lambda: read_results(tmp_path),
            lambda: read_clusters(tmp_path),
        ):
            with pytest.raises(ResultsError, match=problem):
                read()

    def test_knows_the_rule(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        folder.write_run({"config": {"k": 5, "tau": 1.5, "ood_ratio": 0.3, "seed": 0}, "identity": {}})
        assert folder.rule() == Rule(k=5, tau=1.5, ood_ratio=0.3)

    @pytest.mark.parametrize("config", [{}, {"k": 5, "tau": 1.5}, {"k": 5, "tau": "x", "ood_ratio": 0.3}])
    def test_without_a_rule_is_refused(self, tmp_path: Path, config: object) -> None:
        folder = ResultsFolder(tmp_path)
        folder.write_run({"config": config, "identity": {}})
        with pytest.raises(ResultsError, match=r"run\.json does not say with which K, tau and T"):
            folder.rule()

    def test_a_folder_in_its_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").mkdir()
        with pytest.raises(ResultsError, match=r"cannot read .*run.json"):
            ResultsFolder(tmp_path).read_run()


class TestWriting:
    def test_nothing_appears_where_writing_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(table: pa.Table, where: Path, **options: object) -> None:
            where.write_bytes(b"PAR1 and then the disk was full")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pq, "write_table", full)
        with pytest.raises(RunError, match=r"cannot write .*part-000004.parquet: No space left on device"):
            write_part(ResultsFolder(tmp_path), 4, [failed_row("a")])
        assert files(tmp_path) == []

    def test_what_was_there_stays_where_writing_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "run.json"
        write_json(target, {"a": 1})
        monkeypatch.setattr(Path, "replace", lambda self, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_json(target, {"a": 2})
        assert json.loads(target.read_text()) == {"a": 1}
        assert files(tmp_path) == ["run.json"]

    def test_a_content_that_is_no_json_leaves_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"a": object()})
        assert files(tmp_path) == []

    def test_a_file_in_the_way_is_an_error_of_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "results").touch()
        with pytest.raises(RunError, match="cannot write"):
            write_part(ResultsFolder(tmp_path), 0, [])

    def test_nan_becomes_null(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"a": math.nan, "b": [{"c": math.nan}, 1.5], "d": "NaN"})

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        content = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
        assert content == {"a": None, "b": [{"c": None}, 1.5], "d": "NaN"}

    def test_writing_twice_is_writing_once(self, tmp_path: Path) -> None:
        folder = write_results(tmp_path, [random_images(0, 2)])
        before = folder.part(0).read_bytes()
        write_rows(read_rows([folder.part(0)]), folder.part(0))
        assert folder.part(0).read_bytes() == before
        assert files(on_disk(folder.results)) == ["part-000000.parquet"]


class TestReadRows:
    def test_columns_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        folder = write_results(tmp_path, [[failed_image("b"), failed_image("a")], [failed_image("c")]])
        table = read_rows(folder.parts(), ["status", "clusters", "image_id"])
        assert table.column_names == ["status", "clusters", "image_id"]
        assert table["image_id"].to_pylist() == ["b", "a", "c"]
        assert read_rows(folder.parts()).schema.equals(RESULT_SCHEMA)

    def test_no_files_are_no_rows(self) -> None:
        assert read_rows([]).equals(RESULT_SCHEMA.empty_table())
        assert read_rows([], ["error"]).column_names == ["error"]

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 40])
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        folder = write_results(tmp_path, [[failed_image("a")], [failed_image("b")]])
        on_disk(folder.part(1)).write_bytes(content)
        with pytest.raises(
            ResultsError, match=r"cannot read .*part-000001.parquet: .*[^.]\. Delete the file and run again"
        ):
            read_rows(folder.parts())

    def test_broken_pages_are_broken_content_too(self, tmp_path: Path) -> None:
        """Of these pyarrow raises OSError, as it does where a disk fails."""
        path = on_disk(write_results(tmp_path, [random_images(0, 2)]).part(0))
        content = bytearray(path.read_bytes())
        content[4:200] = bytes(196)
        path.write_bytes(content)
        with pytest.raises(
            ResultsError, match=r"cannot read .*part-000000.parquet: .*[^.]\. Delete the file and run again"
        ):
            read_rows([path])

    def test_a_file_that_is_gone_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match=r"cannot read .*part-000001.parquet: No such file or directory$"):
            read_rows([ResultsFolder(tmp_path).part(1)])

    def test_no_one_is_told_to_delete_what_the_system_cannot_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = write_results(tmp_path, [[failed_image("a")]])

        def fail(path: Path, **_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(pq, "ParquetFile", fail)
        with pytest.raises(ResultsError, match=r"cannot read .*part-000000.parquet: Input/output error$"):
            read_rows(folder.parts())

    def test_a_file_of_another_version_is_refused(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        for table in (RESULT_SCHEMA.empty_table().drop(["error"]), pa.table({"image_id": ["a"]})):
            write_table(table, folder.part(0))
            with pytest.raises(ResultsError, match="written by another version"):
                read_rows(folder.parts(), ["image_id"])

    def test_any_folder_name_will_do(self, tmp_path: Path) -> None:
        for name in ("ü 100% #1?k=3", ".hidden", "a:b", "_under"):
            folder = write_results(tmp_path / name, [[failed_image("a")]])
            assert read_rows(folder.parts(), ["error"]).to_pylist() == [{"error": "broken"}]


class TestReadResults:
    def test_one_row_per_image_in_the_order_of_the_units(self, tmp_path: Path) -> None:
        images = random_images(1, 3)
        write_results(tmp_path, [[images[2]], [failed_image("x"), images[0]], [images[1]]])
        frame = oodray.read_results(tmp_path)
        assert frame["image_id"].tolist() == ["002", "x", "000", "001"]
        assert frame["status"].tolist() == ["ok", "error", "ok", "ok"]
        assert list(frame.columns) == RESULT_SCHEMA.names
        assert oodray.decode_mask(frame["mask_png"][0]).shape == images[2].size

    def test_a_run_without_results_has_none_yet(self, tmp_path: Path) -> None:
        write_results(tmp_path, [])
        assert len(read_results(str(tmp_path))) == 0
        assert read_clusters(tmp_path).columns[0] == "image_id"
        assert len(read_clusters(tmp_path)) == 0

    def test_pandas_alone_reads_failed_and_good_parts_together(self, tmp_path: Path) -> None:
        """Without the types that a file of errors alone cannot show, this very call fails."""
        write_results(tmp_path, [[failed_image("a"), failed_image("b")], random_images(0, 2)])
        script = f"""
import sys
for name in ("ray", "torch", "oodray", "mmseg"):
    sys.modules[name] = None  # importing it fails
import io, numpy as np, pandas as pd
from PIL import Image
frame = pd.read_parquet({str(tmp_path / "results")!r}).sort_values("image_id")
assert frame["status"].tolist() == ["ok", "ok", "error", "error"], frame["status"]
row = frame.iloc[0]
assert np.asarray(Image.open(io.BytesIO(row["mask_png"]))).shape == (row["height"], row["width"])
assert sum(cluster["pixels"] for cluster in row["clusters"]) == row["height"] * row["width"]
assert {{tally["score"] for tally in row["tallies"]}} >= {{"max-logit", "msp"}}
print("read")
"""
        done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("read\n", "")


class TestReadClusters:
    def test_every_number_is_what_counting_pixels_gives(self, tmp_path: Path) -> None:
        method = replace(METHOD, ks=(3, 4))
        images = random_images(5, 7, method)
        write_results(tmp_path, [images[:2], [failed_image("x")], images[2:6], [failed_image("y"), images[6]]], method)
        expected = []
        for image in images:
            for k in method.ks:
                pixels = Pixels(image, replace(method, k=k))
                for cluster in np.unique(pixels.cluster):
                    inside = pixels.cluster == cluster
                    expected.append(
                        {
                            "image_id": image.image_id,
                            "k": k,
                            "cluster": int(cluster),
                            "pixels": int(inside.sum()),
                            "unsure": int(pixels.unsure[inside].sum()),
                            "ratio": float(pixels.ratio[inside][0]),
                            "ood": bool(pixels.mask[inside][0]),
                            "pixels_id": int((pixels.label[inside] == 0).sum()),
                            "pixels_ood": int((pixels.label[inside] == 1).sum()),
                            "pixels_ignored": int((pixels.label[inside] == 255).sum()),
                        }
                    )
        frame = oodray.read_clusters(tmp_path)
        assert frame.to_dict("records") == expected
        assert frame.index.tolist() == list(range(len(expected)))

    def test_failed_images_alone_have_no_clusters(self, tmp_path: Path) -> None:
        write_results(tmp_path, [[failed_image("x")]])
        assert len(read_clusters(tmp_path)) == 0

    def test_types_do_not_depend_on_failures(self, tmp_path: Path) -> None:
        write_results(tmp_path / "good", [random_images(0, 2)])
        write_results(tmp_path / "mixed", [[failed_image("x")], random_images(0, 2)])
        pd.testing.assert_frame_equal(read_clusters(tmp_path / "good"), read_clusters(tmp_path / "mixed"))

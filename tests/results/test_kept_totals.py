"""Counts that are kept beside the files of waves: what comes of them is what comes of the rows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_oracles import METHOD, failed_image, random_images, write_results
from places import on_disk

from oodray.analysis import totals
from oodray.analysis.evaluation import Evaluation, evaluate_run, measure_run
from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total, total_here
from oodray.datasets.manifest import read_manifest
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.conventions import DEFAULT
from oodray.metrics.evaluation import Totals
from oodray.metrics.pixel_counts import PixelCounts, PixelKeys
from oodray.metrics.scales import Float32
from oodray.records import from_arrow, to_arrow
from oodray.results import joining, kept_totals, reading
from oodray.results.continuing import start_anew
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.results.reading import RowGroup, read_rows, read_unit
from oodray.results.rows import RESULT_SCHEMA, ResultRow, ScoreTally
from oodray.results.sums import COLUMNS, RowSums, score_counts
from oodray.results.waves import close_waves, open_waves, remove_closed_parts

RULE = Rule(METHOD.k, METHOD.tau, METHOD.ood_ratio)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultsFolder:
    """Three units of two images in two closed waves, and a unit with a failed image that is not in one."""
    monkeypatch.setattr(joining, "LABELLED_UNITS_OF_A_WAVE", 2)
    monkeypatch.setattr(joining, "BYTES_OF_A_GROUP", 0)
    images = [replace(image, image_id=f"{index:03}") for index, image in enumerate(random_images(3, 7))]
    units = [images[:2], images[2:4], images[4:6], [images[6], failed_image("x")]]
    folder: ResultsFolder = write_results(tmp_path / "out", units)
    manifest = read_manifest(folder.manifest)
    open_waves(folder, manifest.slice(0, 6), range(3))
    close_waves(folder)
    remove_closed_parts(folder)
    monkeypatch.setattr(kept_totals, "KEPT_FROM", 1)
    return folder


def kept(folder: ResultsFolder) -> list[str]:
    return sorted(path.name for path in folder.totals.glob("*"))


def numbers(evaluation: Evaluation) -> str:
    return repr(evaluation)


def count_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are counted from now on."""
    counted: list[int] = []

    def here(files: CountedFiles, rule: Rule | None, *, compiled: bool) -> Totals:
        found = total_here(files, rule, compiled=compiled)
        counted.append(found.images + found.failed)
        return found

    monkeypatch.setattr(totals, "total_here", here)
    return counted


def test_rows_of_waves_are_counted_without_the_label_of_each_key(folder: ResultsFolder) -> None:
    files = CountedFiles.of(folder)
    fewer, whole = [*files.to_count(COLUMNS)], [*files.tables(COLUMNS)]
    waves = [part for part in files.parts if isinstance(part, RowGroup)]
    assert len(waves) == 3
    for table in fewer[: len(waves)]:
        for name in ("clusters", "tallies"):
            assert "labels" not in [field.name for field in table.schema.field(name).type.value_type]
    assert fewer[len(waves)].schema.equals(whole[len(waves)].schema), "units that no wave has are read as they are"
    for one, other in zip(fewer, whole, strict=True):
        assert_same_counts(counts_of(one), counts_of(other))


def test_a_few_rows_of_a_row_group_are_counted_at_a_time(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = CountedFiles.of(folder)
    monkeypatch.setattr(reading, "_VALUES_AT_ONCE", 1)
    tables = [*files.to_count(COLUMNS)]
    assert [table.num_rows for table in tables] == [1] * 6 + [2], "six rows of waves, and a file of two"
    assert_same_counts(counts_of(*tables), counts_of(*files.tables(COLUMNS)))


@pytest.mark.parametrize("wrong", [-1, 10**6])
@pytest.mark.parametrize("compiled", [False, True])
def test_tallies_that_say_another_number_of_keys_are_refused(folder: ResultsFolder, wrong: int, compiled: bool) -> None:
    files = CountedFiles.of(folder)
    path = next(part.path for part in files.parts if isinstance(part, RowGroup))
    rows = read_rows([path]).to_pylist()
    rows[0]["clusters"][0]["keys_id"] = wrong
    pq.write_table(pa.Table.from_pylist(rows, RESULT_SCHEMA), on_disk(path), row_group_size=1)
    with pytest.raises(ResultsError, match=r"tallies of this run have \d+ keys and \d+ counts, and say that they have"):
        total_here(CountedFiles.of(folder), RULE, compiled=compiled)


@pytest.mark.parametrize("of_others", ["items", "nullable"])
def test_waves_that_another_tool_has_written_are_read_whole(folder: ResultsFolder, of_others: str) -> None:
    before = counts_of(*CountedFiles.of(folder).tables(COLUMNS))
    for path in {part.path for part in CountedFiles.of(folder).parts if isinstance(part, RowGroup)}:
        table = read_rows([path])
        if of_others == "nullable":
            fields = [field.with_type(nullable(field.type)) for field in table.schema]
            table = table.cast(pa.schema(fields))
        pq.write_table(table, on_disk(path), row_group_size=1, use_compliant_nested_type=of_others == "nullable")
    found = counts_of(*CountedFiles.of(folder).to_count(COLUMNS))
    assert_same_counts(found, before)


def nullable(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.ListType):
        return pa.list_(nullable(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, nullable(field.type)) for field in kind])
    return kind


def assert_same_counts(found: Totals, expected: Totals) -> None:
    assert (found.images, found.failed) == (expected.images, expected.failed)
    assert found.images > 0
    assert (found.scores, found.inside, found.outside) == (expected.scores, expected.inside, expected.outside)
    assert found.clusters.tolist() == expected.clusters.tolist()


def counts_of(*tables: pa.Table) -> Totals:
    sums = RowSums(RULE)
    for table in tables:
        sums.add(table)
    return sums.total()


def test_scores_of_float32_are_counted_without_the_label_of_each_key() -> None:
    scores, labels = np.array([[0.5, 0.5, 2, -3]], np.float32), np.array([[1, 255, 0, 1]], np.uint8)
    for repeats in (1, 50):  # mostly different, then as cells
        keys = Float32().keys(np.tile(scores, (1, repeats)))
        tally = ScoreTally.of("s", "float32", keys, np.tile(labels, (1, repeats)))
        assert (tally.packed is None) == (repeats > 1)
        structs = to_arrow(ScoreTally, [tally, tally])
        fewer = pa.StructArray.from_arrays(
            [structs.field(field.name) for field in structs.type if field.name != "labels"],
            [field.name for field in structs.type if field.name != "labels"],
        )
        found, expected = (
            score_counts(pa.chunked_array([pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), entries)]))
            for entries in (fewer, structs)
        )
        assert found == expected
        assert (found["s"].ood.sum(), found["s"].ind.sum()) == (4 * repeats, 2 * repeats)


def test_the_second_evaluation_reads_the_rows_that_no_wave_has(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(folder.parts()) == 3
    plain = measure_run(folder)
    assert kept(folder) == []  # who measures writes nothing
    first = evaluate_run(folder)
    assert [name.partition(".")[0] for name in kept(folder)] == ["part-000000-000001", "part-000002-000002"]
    counted = count_rows(monkeypatch)
    again = evaluate_run(folder)
    assert counted == [2]
    assert numbers(plain) == numbers(first) == numbers(again)
    assert again.images == 7
    # What is asked of single images is read from their rows.
    assert numbers(evaluate_run(folder, [DEFAULT], 5)) == numbers(measure_run(folder, [DEFAULT], 5))


def test_a_wave_that_is_closed_is_counted_as_its_rows_pass_by(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(evaluate_run(folder))
    by_evaluation = [(folder.totals / name).read_bytes() for name in kept(folder)]
    open_waves(folder, read_manifest(folder.manifest).slice(0, 6), range(3))
    for path in folder.totals.glob("*"):
        path.unlink()
    close_waves(folder)
    assert [(folder.totals / name).read_bytes() for name in kept(folder)] == by_evaluation
    counted = count_rows(monkeypatch)
    assert numbers(evaluate_run(folder)) == expected
    assert counted == [2]


@pytest.mark.soak
def test_ray_tasks_keep_and_find_the_same(
    folder: ResultsFolder, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = measure_run(folder, on_ray=False)
    monkeypatch.setattr(totals, "FILES_PER_TASK", 1)
    assert numbers(evaluate_run(folder)) == numbers(alone)
    assert len(kept(folder)) == 2
    counted = count_rows(monkeypatch)
    assert numbers(evaluate_run(folder)) == numbers(alone)
    assert counted == [2]


def test_threads_keep_and_find_the_same(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = measure_run(folder, on_ray=False)
    monkeypatch.setattr(totals, "FILES_PER_TASK", 1)
    monkeypatch.setattr(totals, "usable_cores", lambda: 3)
    assert numbers(evaluate_run(folder, on_ray=False)) == numbers(alone)
    assert len(kept(folder)) == 2
    on_disk(folder.part(3)).write_bytes(b"damaged")
    with pytest.raises(ResultsError, match="part-000003"):
        total(CountedFiles(folder.parts()), replace(RULE, tau=RULE.tau + 1), on_ray=False)


def test_a_wave_that_was_written_anew_is_counted_anew(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_run(folder)
    before = kept(folder)
    open_waves(folder, read_manifest(folder.manifest), [1])
    table = read_unit(folder, 1)
    [first, second] = from_arrow(ResultRow, table.combine_chunks().to_batches()[0].to_struct_array())
    write_part(folder, 1, [first, replace(second, tallies=first.tallies, clusters=first.clusters)])
    close_waves(folder)
    remove_closed_parts(folder)
    found = numbers(evaluate_run(folder))
    assert kept(folder)[0] != before[0]
    assert kept(folder)[1] == before[1] or len(kept(folder)) > 2
    for path in folder.totals.glob("*"):
        path.unlink()
    assert numbers(measure_run(folder)) == found


def test_another_rule_has_counts_of_its_own(folder: ResultsFolder) -> None:
    wave = next(path for path in folder.parts() if "-000001" in path.name)
    other = replace(RULE, tau=RULE.tau + 1)
    files = {kept_totals.totals_file(wave, rule) for rule in (RULE, other, None)}
    assert len(files) == 3
    evaluate_run(folder)
    found = total(CountedFiles.of(folder), other, on_ray=False)
    assert found.clusters[0].sum() > total(CountedFiles.of(folder), RULE, on_ray=False).clusters[0].sum()


@pytest.mark.parametrize("content", [b"", b"noise", None])
def test_a_damaged_file_of_counts_is_written_anew(folder: ResultsFolder, content: bytes | None) -> None:
    expected = numbers(evaluate_run(folder))
    path = next(iter(folder.totals.glob("*")))
    whole = path.read_bytes()
    on_disk(path).write_bytes(whole[:-20] if content is None else content)
    assert numbers(evaluate_run(folder)) == expected
    assert path.read_bytes() == whole


def test_an_image_that_is_there_twice_counts_once_whatever_is_kept(folder: ResultsFolder) -> None:
    expected = numbers(evaluate_run(folder))
    os.link(str(folder.results / "part-000000-000001.parquet"), str(folder.results / "part-000007-000008.parquet"))
    assert numbers(evaluate_run(folder)) == expected


def test_small_waves_are_read_and_a_run_that_starts_anew_takes_them_along(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_totals, "KEPT_FROM", 500)
    evaluate_run(folder)
    open_waves(folder, read_manifest(folder.manifest), range(3))
    close_waves(folder)
    assert kept(folder) == []
    monkeypatch.setattr(kept_totals, "KEPT_FROM", 1)
    evaluate_run(folder)
    folder.write_run(folder.read_run() | {"config": {}, "identity": {}})
    start_anew(folder)
    assert not on_disk(folder.totals).exists()


def test_lists_of_pixels_are_not_kept(tmp_path: Path) -> None:
    keys = [np.array([key], np.uint32) for key in (2**31, 2**31 + 1, 2**31 + 2)]
    counts = PixelCounts(Float32(), [PixelKeys(*keys)])
    (tmp_path / "totals").mkdir()
    kept_totals.write_totals(
        tmp_path / "totals" / "part-000000-000001.abc.parquet", Totals(images=1, scores={"s": counts})
    )
    assert [*(tmp_path / "totals").iterdir()] == []

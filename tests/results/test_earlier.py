"""A run of two images that version 0.1.0 made, see `run-0.1.0/run.json`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import oodray
from oodray.errors import ResultsError
from oodray.results.earlier import as_today, is_known
from oodray.results.rows import RESULT_SCHEMA

MADE = Path(__file__).with_name("run-0.1.0")
NUMBERS = ["ap", "fpr95", "auroc", "pixels_ood", "pixels_id"]


def tallies_of(names: str, keys: pa.DataType) -> pa.DataType:
    kinds: dict[str, pa.DataType] = {
        "keys": pa.list_(keys),
        "labels": pa.list_(pa.uint8()),
        "counts": pa.list_(pa.int64()),
        "packed": pa.large_binary(),
    }
    return pa.list_(pa.struct([(name, kinds.get(name, pa.string())) for name in names.split()]))


TALLIES_BEFORE_SCALES = tallies_of("score keys labels counts", pa.uint16())
TALLIES_BEFORE_LISTS = tallies_of("score scale keys labels counts", pa.uint32())
TALLIES_BEFORE_KEYS_OF_LABELS = tallies_of("score scale keys labels counts packed", pa.uint32())

CLUSTER_OF_NULLABLES: list[tuple[str, pa.DataType]] = [
    ("k", pa.int16()),
    ("cluster", pa.int16()),
    ("pixels", pa.int64()),
    ("ratio", pa.float64()),
    ("keys", pa.list_(pa.uint16())),
    ("labels", pa.list_(pa.uint8())),
    ("counts", pa.list_(pa.int64())),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "out"))


def test_the_file_is_of_another_schema() -> None:
    schema = pq.read_schema(MADE / "results/part-000000.parquet")
    assert is_known(schema)
    assert schema.field("tallies").type.equals(TALLIES_BEFORE_SCALES)
    assert not schema.equals(RESULT_SCHEMA)


def test_it_is_evaluated_to_the_same_numbers(out: Path) -> None:
    then = pd.read_parquet(out / "metrics.parquet").set_index("score")
    (out / "metrics.parquet").unlink()
    now = oodray.open_run(out).metrics.set_index("score")
    columns = [name for name in NUMBERS if name in then]
    assert {"ap", "fpr95", "auroc"} <= {*columns}
    pd.testing.assert_frame_equal(now.loc[then.index, columns], then[columns], rtol=1e-12)


def test_it_is_opened(out: Path) -> None:
    run = oodray.open_run(out)
    assert run.images["image_id"].tolist() == ["images/0", "images/1"]
    assert run.images["maps"].isna().all()
    assert {*run.clusters["k"]} == {4, 5}
    assert run.mask("images/0").shape == (48, 64)
    assert len(run.sweep(tau="3:4:0.5", ood_ratio="0.2:0.4:0.1")) == 2 * 3 * 3
    assert {"smiyc", "fishyscapes"} <= {*run.evaluate(like=["smiyc", "fishyscapes"])["like"]}


def test_it_is_not_continued(out: Path) -> None:
    """Its keys are of another scale than those that would be added."""
    root = out / "photos/images"
    root.mkdir(parents=True)
    for name in ("0.png", "1.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / name)
    with pytest.raises(ResultsError, match="holds a run with other settings"):
        oodray.run(
            dataset="folder", root=root.parent, model="internimage-n-demo", executor="local", out=out, progress=False
        )


def test_images_that_failed_have_no_tallies() -> None:
    tally = {"score": "energy", "keys": [1, 65535], "labels": [0, 1], "counts": [3, 4]}
    table = pa.table({"tallies": pa.array([None, [tally], [], [tally, tally]], TALLIES_BEFORE_SCALES)})
    today = as_today(table.slice(1), ["tallies", "maps"])
    assert today.schema.field("tallies").type.equals(RESULT_SCHEMA.field("tallies").type)
    with_scale = tally | {"scale": "float16", "packed": None, "keys_id": 1, "keys_ood": 1, "keys_ignored": 0}
    assert as_today(table, ["tallies"])["tallies"].to_pylist() == [None, [with_scale], [], [with_scale, with_scale]]
    assert today["tallies"].to_pylist() == [[with_scale], [], [with_scale, with_scale]]
    assert today["maps"].null_count == 3


@pytest.mark.parametrize("kind", [TALLIES_BEFORE_LISTS, TALLIES_BEFORE_KEYS_OF_LABELS])
def test_tallies_of_later_versions_lack_less(kind: pa.DataType) -> None:
    tally = {"score": "s", "scale": "float32", "keys": [1, 2**31, 7], "labels": [0, 1, 255], "counts": [3, 4, 5]}
    empty = tally | {"keys": [], "labels": [], "counts": []}
    table = pa.table({"tallies": pa.array([[tally, empty], None], kind)})
    none = {"packed": None, "keys_id": 0, "keys_ood": 0, "keys_ignored": 0}
    filled = tally | {"packed": None, "keys_id": 1, "keys_ood": 1, "keys_ignored": 1}
    assert as_today(table, ["tallies"])["tallies"].to_pylist() == [[filled, empty | none], None]
    assert is_known(with_column("tallies", kind))


@pytest.mark.parametrize(
    "kind",
    [
        tallies_of("score scale keys labels", pa.uint32()),
        tallies_of("score scale keys labels counts", pa.uint16()),
        tallies_of("score scale keys labels counts more", pa.uint32()),
        pa.list_(pa.uint32()),
        pa.string(),
    ],
)
def test_tallies_of_no_version_are_not_read(kind: pa.DataType) -> None:
    assert not is_known(with_column("tallies", kind))


def with_column(name: str, kind: pa.DataType) -> pa.Schema:
    return RESULT_SCHEMA.set(RESULT_SCHEMA.get_field_index(name), pa.field(name, kind))


def test_lists_that_may_hold_nulls_become_those_of_today(out: Path) -> None:
    """As all files were written before lists were said to hold none."""
    cluster = pa.struct([(name, kind) for name, kind in CLUSTER_OF_NULLABLES])
    entry = {"k": 5, "cluster": 1, "pixels": 7, "ratio": 0.5, "keys": [3, 9], "labels": [0, 255], "counts": [3, 4]}
    rows = [[entry, entry], None, [], [entry]]
    table = pa.table({"clusters": pa.array(rows, pa.list_(cluster))})
    pq.write_table(table, out / "earlier.parquet")
    assert not table.schema.field("clusters").type.equals(RESULT_SCHEMA.field("clusters").type)
    assert is_known(with_column("clusters", table.schema.field("clusters").type))
    for found in (
        table,
        table.slice(1),
        pa.concat_tables([table, table.slice(2)]),
        pq.read_table(out / "earlier.parquet"),
    ):
        today = as_today(found, ["clusters"])
        today.validate(full=True)
        assert today.schema.field("clusters").type.equals(RESULT_SCHEMA.field("clusters").type)
        added = {"keys_id": 1, "keys_ood": 0, "keys_ignored": 1}
        assert today["clusters"].to_pylist() == [
            row and [entry | added for entry in row] for row in found["clusters"].to_pylist()
        ]

from __future__ import annotations

import pyarrow as pa

from oodray.job.units import DECODED, LISTED, SEGMENTED, pack, unpack

LISTED_ROW = {"unit": 3, "image_id": "ü/1", "dataset": "x", "image_uri": "/a b.png", "label_uri": None}


def test_a_unit_is_one_row_and_survives_the_way() -> None:
    rows = [LISTED_ROW, LISTED_ROW | {"image_id": "2", "label_uri": "/l.png"}]
    table = pack(3, rows, LISTED)
    assert table.num_rows == 1
    assert unpack(table) == (3, rows)


def test_a_unit_without_images_is_a_unit() -> None:
    assert unpack(pack(9, [], SEGMENTED)) == (9, [])


def test_what_is_absent_is_null_and_what_is_not_of_the_stage_is_left_behind() -> None:
    table = pack(0, [LISTED_ROW | {"error": "broken", "scratch": 1}], DECODED)
    _, [row] = unpack(table)
    assert row == dict.fromkeys(field.name for field in DECODED) | LISTED_ROW | {"error": "broken"}


def test_bytes_come_back_as_they_were() -> None:
    image, ids = bytes(range(256)), b"\x00\xff\x00"
    maps = [{"k": 5, "height": 1, "width": 3, "ids": ids}]
    _, [row] = unpack(pack(0, [LISTED_ROW | {"label": image, "cluster_maps": maps}], SEGMENTED))
    assert row["label"] == image
    assert row["cluster_maps"] == maps


def test_all_images_of_a_unit_may_exceed_what_32_bit_offsets_reach() -> None:
    for stage, name in ((DECODED, "image"), (DECODED, "label"), (SEGMENTED, "confidence")):
        assert stage.field(name).type == pa.large_binary()


def test_only_the_decoded_image_stays_behind_after_the_network() -> None:
    assert {field.name for field in DECODED} - {field.name for field in SEGMENTED} == {"image"}

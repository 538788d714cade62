from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pixel_oracles import failed_image, listed_image, random_images
from plain_records import plain

from oodray.datasets.manifest import ListedImage
from oodray.job.units import (
    ClusterMap,
    DecodedImage,
    SegmentedImage,
    UnitDone,
    pack,
    pack_done,
    unpack,
    unpack_done,
)
from oodray.records import extended, struct_of

LISTED = ListedImage(unit=3, image_id="ü/1", dataset="x", image_uri="/a b.png", label_uri=None)


def test_a_unit_is_one_row_and_survives_the_way() -> None:
    images = [LISTED, listed_image("2", unit=3)]
    table = pack(images, ListedImage)
    assert table.num_rows == 1
    assert unpack(table, ListedImage) == images


@pytest.mark.parametrize("count", [1, 2, 8])
def test_segmented_images_survive_the_way(count: int) -> None:
    images = [*random_images(count, count), failed_image("x")]
    assert plain(unpack(pack(images, SegmentedImage), SegmentedImage)) == plain(images)


def test_a_unit_without_images_is_a_unit() -> None:
    table = pack([], SegmentedImage)
    assert (table.num_rows, unpack(table, SegmentedImage)) == (1, [])


def test_a_unit_survives_being_joined_and_cut_as_ray_does() -> None:
    units = [random_images(0, 2), [failed_image("x")], random_images(1, 3)]
    joined = pa.concat_tables([pack(images, SegmentedImage) for images in units])
    for index, images in enumerate(units):
        for table in (joined.slice(index, 1), joined.combine_chunks().slice(index, 1)):
            assert plain(unpack(table, SegmentedImage)) == plain(images)


def test_what_is_absent_is_none() -> None:
    [image] = unpack(pack([extended(DecodedImage, LISTED, error="broken")], DecodedImage), DecodedImage)
    absent = {field.name: None for field in struct_of(DecodedImage)}
    assert plain(image) == absent | plain(LISTED) | {"error": "broken"}


def test_pixels_come_back_as_they_were_and_cannot_be_written_to() -> None:
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    ids = np.array([[0, 255, 0]], np.uint8)
    sent = extended(
        SegmentedImage,
        LISTED,
        height=8,
        width=32,
        label=label,
        cluster_maps=[ClusterMap(k=5, height=1, width=3, ids=ids)],
    )
    [image] = unpack(pack([sent], SegmentedImage), SegmentedImage)
    assert plain(image) == plain(sent)
    assert image.label is not None
    assert not image.label.flags.writeable


def test_all_images_of_a_unit_may_exceed_what_32_bit_offsets_reach() -> None:
    for stage, name in ((DecodedImage, "image"), (DecodedImage, "label"), (SegmentedImage, "confidence")):
        assert struct_of(stage).field(name).type == pa.large_binary()


def test_only_the_decoded_image_stays_behind_after_the_network() -> None:
    decoded, segmented = ({field.name for field in struct_of(kind)} for kind in (DecodedImage, SegmentedImage))
    assert decoded - segmented == {"image"}


def test_what_the_driver_hears_survives_the_way() -> None:
    heard = [UnitDone(2, 0), UnitDone(0, 3, ["a: ü", "b: \n"], ["c: turned"])]
    assert [done for unit in heard for done in unpack_done(pack_done(unit))] == heard
    # Ray may join the tables of several units.
    assert unpack_done(pa.concat_tables([pack_done(unit) for unit in heard])) == heard


def test_a_size_is_that_of_a_decoded_image_alone() -> None:
    assert random_images(0, 1)[0].size == random_images(0, 1)[0].label.shape  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="only a decoded image has a size"):
        failed_image("x").size  # noqa: B018

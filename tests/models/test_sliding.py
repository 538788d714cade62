from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from oodray.models.sliding import Window, slide, windows

Size = tuple[int, int]


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Size, Size, Size]:
    """Image, crop and stride, each (height, width), without gaps between the windows."""
    sides = st.integers(1, 16)
    crop = draw(sides), draw(sides)
    return (draw(sides), draw(sides)), crop, (draw(st.integers(1, crop[0])), draw(st.integers(1, crop[1])))


def image_as_logits(window: Tensor) -> tuple[Tensor, Tensor]:
    """A network whose logits are its input and whose features are 4x4 means of it."""
    return window, F.avg_pool2d(window, 4)


def ramps(height: int, width: int) -> Tensor:
    """`(1, 2, H, W)`: the x and the y of every pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((x, y))[None].double()


class TestWindows:
    @given(geometries())
    def test_each_has_the_size_of_the_crop_and_together_they_cover_the_image(
        self, geometry: tuple[Size, Size, Size]
    ) -> None:
        (height, width), crop, stride = geometry
        covered = torch.zeros(height, width)
        for window in windows(height, width, crop, stride):
            assert 0 <= window.top < window.bottom <= height
            assert 0 <= window.left < window.right <= width
            assert window.bottom - window.top == min(crop[0], height)
            assert window.right - window.left == min(crop[1], width)
            covered[window.top : window.bottom, window.left : window.right] += 1
        assert covered.min() >= 1

    @pytest.mark.parametrize(
        ("size", "lefts"),
        [(3, [0]), (4, [0]), (5, [0, 1]), (6, [0, 2]), (7, [0, 2, 3]), (8, [0, 2, 4])],
    )
    def test_the_last_is_moved_back_inside(self, size: int, lefts: list[int]) -> None:
        assert [window.left for window in windows(1, size, (1, 4), (1, 2))] == lefts
        assert [window.top for window in windows(size, 1, (4, 1), (2, 1))] == lefts

    def test_row_by_row(self) -> None:
        assert list(windows(2, 2, (1, 1), (1, 1))) == [
            Window(0, 1, 0, 1),
            Window(0, 1, 1, 2),
            Window(1, 2, 0, 1),
            Window(1, 2, 1, 2),
        ]


class TestLogits:
    @given(geometries())
    def test_pixelwise_networks_do_not_notice_the_windows(self, geometry: tuple[Size, Size, Size]) -> None:
        (height, width), crop, stride = geometry
        image = ramps(height, width)
        logits, _ = slide(image, lambda window: (window, window), crop, stride)
        torch.testing.assert_close(logits, image)

    def test_overlaps_are_averaged(self) -> None:
        numbers = iter([1.0, 2.0, 6.0])

        def forward(window: Tensor) -> tuple[Tensor, Tensor]:
            logits = torch.full_like(window, next(numbers))
            return logits, logits

        logits, features = slide(torch.zeros(1, 1, 1, 6), forward, crop=(1, 4), stride=(1, 1))
        expected = torch.tensor([1, 1.5, 3, 3, 4, 6])
        torch.testing.assert_close(logits.flatten(), expected)
        torch.testing.assert_close(features.flatten(), expected)


class TestFeatures:
    @given(geometries(), st.integers(1, 5), st.integers(1, 5))
    def test_constants_stay_constant(self, geometry: tuple[Size, Size, Size], rows: int, columns: int) -> None:
        (height, width), crop, stride = geometry

        def forward(window: Tensor) -> tuple[Tensor, Tensor]:
            return window, torch.tensor([3.5, -2.0])[None, :, None, None].expand(1, 2, rows, columns)

        _, features = slide(torch.zeros(1, 1, height, width), forward, crop, stride)
        torch.testing.assert_close(features[:, 0], torch.full_like(features[:, 0], 3.5))
        torch.testing.assert_close(features[:, 1], torch.full_like(features[:, 1], -2.0))

    @pytest.mark.parametrize("stride", [(8, 8), (4, 4), (8, 4)])
    def test_aligned_windows_give_the_features_of_the_whole(self, stride: Size) -> None:
        image = ramps(24, 16)
        _, features = slide(image, image_as_logits, crop=(8, 8), stride=stride)
        torch.testing.assert_close(features, F.avg_pool2d(image, 4))

    def test_windows_between_cells_are_resampled_to_where_the_cells_are(self) -> None:
        # Windows of 16 pixels start at 0, 3, ... 11; the 7 cells are a bit narrower than the 4 pixels of theirs.
        image = ramps(20, 27)
        _, features = slide(image, image_as_logits, crop=(16, 16), stride=(3, 3))
        x = (torch.arange(7).double() + 0.5) * 27 / 7 - 0.5
        y = (torch.arange(5).double() + 0.5) * 4 - 0.5
        # A ramp is reproduced but at the edge of a window, where resampling repeats its last cell.
        expected = torch.stack((x.expand(5, 7), y[:, None].expand(5, 7)))[None]
        torch.testing.assert_close(features, expected, rtol=0, atol=0.51)

    def test_an_image_smaller_than_the_window_is_seen_once_as_a_whole(self) -> None:
        seen = []

        def forward(window: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(window.shape[-2:])
            return image_as_logits(window)

        image = ramps(8, 12)
        logits, features = slide(image, forward, crop=(64, 64), stride=(32, 32))
        assert seen == [(8, 12)]
        torch.testing.assert_close(logits, image)
        torch.testing.assert_close(features, F.avg_pool2d(image, 4))

    def test_a_batch_is_as_its_images_one_by_one(self) -> None:
        batch = torch.cat([ramps(13, 17), ramps(13, 17).flip(-1)])
        together = slide(batch, image_as_logits, (8, 8), (5, 6))
        for index in range(2):
            alone = slide(batch[index : index + 1], image_as_logits, (8, 8), (5, 6))
            torch.testing.assert_close([maps[index : index + 1] for maps in together], list(alone))

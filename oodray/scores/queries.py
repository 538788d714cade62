"""What a mask classifier says of an image, and its semantic map, some rows at a time.

A query q has class logits, the last of which means "nothing", and mask logits. With p_q the softmax of the former and
s_q the sigmoid of the latter, the semantic map is L_c = sum over q of p_q(c) s_q, for each class c. Mask logits go to
their size before the sigmoid. A plane of every query at the size of the image never lies in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oodray.scores.strips import at_image_size, rows_at_image_size

if TYPE_CHECKING:
    from oodray.scores.score import QueryMapScore


@dataclass(frozen=True)
class Window:
    """A rectangle of the network's input, in pixels. It may end beyond the input, where that was padded.

    Attributes:
        top: of its first row.
        left: of its first column.
        height: in rows.
        width: in columns.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Windows:
    """How an input was cut into windows, of which the network saw one at a time.

    Attributes:
        height: of the input as a whole, in pixels.
        width: of the input as a whole, in pixels.
        windows: in the order of the queries.
    """

    height: int
    width: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, eq=False)
class Queries:
    """The queries of an image.

    Attributes:
        class_logits: `(W, Q, C + 1)` floating, of each window; the last class is "nothing".
        mask_logits: `(W, Q, h, w)` floating, each covers exactly its window.
        windows: where they lie; None for one that covers exactly the image, at any size.

    >>> class_logits, mask_logits = torch.tensor([[[9.0, 0.0, 0.0]]]), torch.tensor([[[[-9.0, 9.0]]]])
    >>> semantic, _ = Queries(class_logits, mask_logits).rows(1, 2, slice(0, 1))
    >>> semantic.round(decimals=2).tolist()
    [[[0.0, 1.0]], [[0.0, 0.0]]]
    """

    class_logits: Tensor
    mask_logits: Tensor
    windows: Windows | None = None

    @property
    def classes(self) -> int:
        """C, without "nothing"."""
        return self.class_logits.shape[-1] - 1

    @property
    def planes(self) -> int:
        """How many planes lie in memory for each row."""
        return self.class_logits.shape[1] + self.classes

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: float32, float64 for float64."""
        return torch.float64 if self.class_logits.dtype == torch.float64 else torch.float32

    @property
    def device(self) -> torch.device:
        """Where the queries lie."""
        return self.mask_logits.device

    def rows(
        self, height: int, width: int, rows: slice, scores: Sequence[QueryMapScore] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Some rows of the image.

        Windows are put together at the size of the input, where they overlap by their mean, and go to the size of the
        image from there.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.
            rows: which ones.
            scores: whose maps to compute, too.

        Returns:
            The semantic map `(C, rows, width)`, and the map `(rows, width)` of each score.
        """
        whole = Windows(height, width, (Window(0, 0, height, width),))
        windows = self.windows or whole
        maps = rows_at_image_size(
            lambda first, end: self._merged(windows, first, end, scores),
            (windows.height, windows.width),
            (height, width),
            rows,
        )
        return maps[: self.classes], list(maps[self.classes :])

    def _merged(self, windows: Windows, first: int, end: int, scores: Sequence[QueryMapScore]) -> Tensor:
        """Rows of the input: the semantic map, and then the map of each score."""
        total = torch.zeros(self.classes + len(scores), end - first, windows.width, dtype=self.dtype).to(self.device)
        count = torch.zeros(end - first, windows.width, dtype=self.dtype).to(self.device)
        for class_logits, mask_logits, window in zip(self.class_logits, self.mask_logits, windows.windows, strict=True):
            top, bottom = max(first, window.top), min(end, window.top + window.height)
            right = min(windows.width, window.left + window.width)
            if top >= bottom:
                continue
            inside = slice(top - window.top, bottom - window.top)
            masks = at_image_size(mask_logits.to(self.dtype), window.height, window.width, inside)
            masks = masks[..., : right - window.left].sigmoid()
            found = _maps_of(class_logits.to(self.dtype).softmax(-1), masks, scores)
            if len(windows.windows) == 1 and found.shape == total.shape:
                return found
            total[:, top - first : bottom - first, window.left : right] += found
            count[top - first : bottom - first, window.left : right] += 1
        return total / count.clamp_(min=1)


def _maps_of(classes: Tensor, masks: Tensor, scores: Sequence[QueryMapScore]) -> Tensor:
    semantic = (classes[:, :-1].T @ masks.flatten(1)).view(-1, *masks.shape[1:])
    if not scores:
        return semantic
    return torch.cat([semantic, torch.stack([score.of_queries(classes, masks) for score in scores])])


def semantic_map(queries: Queries) -> Tensor:
    """The semantic map `(C, h, w)` at the size of the mask logits, or of the input in their stride: a small one."""
    height, width = queries.mask_logits.shape[-2:]
    if queries.windows is not None:
        window = queries.windows.windows[0]
        height = max(1, round(queries.windows.height * height / window.height))
        width = max(1, round(queries.windows.width * width / window.width))
    return queries.rows(height, width, slice(0, height))[0]

"""The decode heads of an mmsegmentation network, one or a cascade: from the backbone's maps to one map of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from oodray.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIN_LOGITS_FIRST = ("DAHead", "EncHead")
"""Heads that give several outputs, the first of which is what mmsegmentation predicts from."""

REFINING = "PointHead"
"""The head that works on chosen points: what it predicts is another function than what it is trained with."""


def heads_of(network: Any) -> list[Any] | None:
    """The heads in their order; None where the network has none."""
    found = getattr(network, "decode_head", None)
    return list(found) if isinstance(found, nn.ModuleList) else None if found is None else [found]


class DecodeHeads:
    """The heads of a network as one function.

    In a cascade each head sees the backbone's maps and the logits of the head before it, as in mmsegmentation's
    `CascadeEncoderDecoder.encode_decode`.

    Args:
        heads: of mmsegmentation, one or more.
        test_cfg: of the network.
    """

    def __init__(self, heads: Sequence[Any], test_cfg: Mapping[str, Any] | None) -> None:
        self._heads, self._test_cfg = heads, test_cfg
        self.last = heads[-1]
        self.align_corners = bool(self.last.align_corners)
        self._classifier = _Classifier(self.last)

    def __call__(self, maps: Any, size: tuple[int, int]) -> Tensor:
        """Logits `(N, C, h, w)`.

        Args:
            maps: `(N, c, h, w)`, of the backbone or the neck.
            size: height and width of the network's input.

        Raises:
            ModelError: if a head does not give one map of class logits.
        """
        logits = self._output(self._heads[0], maps)
        for head in self._heads[1:]:
            if type(head).__name__ == REFINING:
                shapes = [{"img_shape": size}] * len(logits)
                logits = head.predict(maps, logits, shapes, self._test_cfg)
            else:
                logits = self._output(head, maps, logits)
        self._classifier.compare(logits)
        return logits

    def _output(self, head: Any, *inputs: Any) -> Tensor:
        output = head(*inputs)
        name = type(head).__name__
        if name in MAIN_LOGITS_FIRST and isinstance(output, tuple):
            output = output[0]
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] < 2:
            raise ModelError(
                f"the head {name} gives {_described(output)}, not one map of logits "
                "with a channel for each of two classes or more; oodray needs those"
            )
        return output

    @property
    def classifier(self) -> Callable[[Tensor], Tensor] | None:
        """The last layer, from what it sees `(N, E, h, w)` to logits; None where it is not one 1x1 convolution."""
        return self._classified if self._classifier.is_last else None

    def _classified(self, head_inputs: Tensor) -> Tensor:
        # Not the layer itself: in another thread the network may be at the next image, and note what it sees.
        layer = self.last.conv_seg
        return nn.functional.conv2d(head_inputs, layer.weight, layer.bias)

    def classifier_inputs(self) -> Tensor | None:
        """What the last layer saw, `(N, E, h, w)`, once; None where a head does more behind it."""
        return self._classifier.taken()


class _Classifier:
    """Notes what the layer `conv_seg` of a decode head sees, and whether its output is that of the head.

    Args:
        head: of mmsegmentation.
    """

    def __init__(self, head: Any) -> None:
        self.is_last = False
        self._seen: Tensor | None = None
        self._output: Tensor | None = None
        layer = getattr(head, "conv_seg", None)
        if isinstance(layer, nn.Conv2d) and layer.weight.shape[1:] == (layer.in_channels, 1, 1):
            layer.register_forward_hook(self._note)

    def _note(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen, self._output = inputs[0], output

    def compare(self, logits: Tensor) -> None:
        """Hear what the head gave."""
        self.is_last = self._output is not None and logits is self._output
        self._output = None
        if not self.is_last:
            self._seen = None

    def taken(self) -> Tensor | None:
        """What the layer saw, `(N, E, h, w)`, and forget it; None where the head does more behind it."""
        seen, self._seen = self._seen, None
        return seen


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, Sequence) else "")

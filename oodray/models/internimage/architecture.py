"""The InternImage + UPerNet networks that oodray knows by name: their sizes, declared.

`configs/models/NAME.py` says the same to mmsegmentation, for those who train or change a network with it; a test holds
the two together. T to XL are those of the authors' configs, N is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Architecture:
    """What decides the keys and the function of a network in inference; its defaults are those of L and XL.

    Attributes:
        channels: of the backbone's first stage; every stage doubles them.
        depths: layers of each stage.
        groups: DCNv3 groups of each stage.
        offset_scale: see `oodray.models.internimage.dcnv3`.
        post_norm: whether the layers normalise after their branches instead of before.
        layer_scale: start value of the learned factors on the branches.
        head_channels: of all maps inside UPerNet.
        outputs: channels of the logits; every published file has 150, whatever it was trained on.
    """

    channels: int
    depths: tuple[int, int, int, int]
    groups: tuple[int, int, int, int]
    offset_scale: float = 2.0
    post_norm: bool = True
    layer_scale: float = 1.0
    head_channels: int = 512
    outputs: int = 150

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of the maps that the backbone hands to the head.

        >>> ARCHITECTURES["internimage-l"].stage_channels
        (160, 320, 640, 1280)
        """
        return tuple(self.channels * 2**stage for stage in range(len(self.depths)))


_N = Architecture(32, (2, 2, 4, 1), (2, 4, 8, 16), offset_scale=1.0, post_norm=False, head_channels=96)

ARCHITECTURES = {
    "internimage-n-demo": replace(_N, outputs=10),
    "internimage-n-camvid": replace(_N, outputs=11),
    "internimage-n-camvid-held-out": replace(_N, outputs=8),
    "internimage-t": Architecture(64, (4, 4, 18, 4), (4, 8, 16, 32), offset_scale=1.0, post_norm=False),
    "internimage-s": Architecture(80, (4, 4, 21, 4), (5, 10, 20, 40), offset_scale=1.0),
    "internimage-b": Architecture(112, (4, 4, 21, 4), (7, 14, 28, 56), offset_scale=1.0),
    "internimage-l": Architecture(160, (5, 5, 22, 5), (10, 20, 40, 80)),
    "internimage-xl": Architecture(192, (5, 5, 24, 5), (12, 24, 48, 96)),
}

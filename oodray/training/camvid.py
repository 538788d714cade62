"""CamVid, in the folders of its SegNet edition, as mmsegmentation training and validation data."""

from __future__ import annotations

from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class CamVidFrames(BaseSegDataset):  # type: ignore[misc]  # mmsegmentation carries no types
    """Frames `SPLIT/*.jpg` with class ids `SPLITannot/*.png` under `data_root`.

    The classes named in a config's `metainfo` are trained, in that order; the pixels of all others, void among
    them, are ignored. Source: Brostow et al., Pattern Recognition Letters 2009; the split of SegNet (Badrinarayanan
    et al., PAMI 2017).
    """

    METAINFO: ClassVar = {
        "classes": (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
            "void",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
            [0, 0, 0],
        ],
    }

    def __init__(self, split: str, **options: Any) -> None:
        super().__init__(
            img_suffix=".jpg",
            seg_map_suffix=".png",
            data_prefix={"img_path": split, "seg_map_path": f"{split}annot"},
            **options,
        )

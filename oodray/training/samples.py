"""Images and their class ids, as mmsegmentation packs them, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from torch.utils.data import Dataset

Sample = dict[str, Any]
Example = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def pack(image: NDArray[np.uint8], semantic: NDArray[np.uint8]) -> Sample:
    """An image `(H, W, 3)` RGB and its class ids `(H, W)` as mmsegmentation takes them: BGR, channels first."""
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(semantic.astype(np.int64))[None]))
    sample.set_metainfo({"img_shape": semantic.shape, "ori_shape": semantic.shape})
    inputs = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
    return {"inputs": inputs, "data_samples": sample}


def examples(dataset: Dataset[Sample]) -> Iterator[Example]:
    """The images and class ids of a dataset, one after the other; what `pack` makes, unpacked."""
    for index in range(len(dataset)):  # type: ignore[arg-type]  # a dataset has a length, its base class does not say so
        sample = dataset[index]
        image = sample["inputs"].numpy().transpose(1, 2, 0)[..., ::-1]
        semantic = sample["data_samples"].gt_sem_seg.data[0].numpy()
        yield np.ascontiguousarray(image), semantic.astype(np.uint8)

"""Sorted keys of the pixels of an image as bytes: what results hold of a score whose values mostly differ.

The steps between neighbours are stored, the low bytes of all before the higher ones, and compressed by zstd: of a
smooth map about 1.1 bytes a pixel.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.errors import ResultsError
from oodray.metrics.long_lists import blocks
from oodray.metrics.pixel_counts import PixelKeys

_HEADER = struct.Struct("<IBI")  # of a list: entries, bytes of a step, compressed bytes
_LEVEL = 1


def pack(keys: PixelKeys) -> bytes:
    """Keys as bytes.

    >>> keys = PixelKeys(*(np.array(values, np.uint32) for values in ([3, 3, 9], [2**32 - 1], [])))
    >>> unpack(pack(keys)).ood.tolist(), unpack(pack(keys)).ind.tolist()
    ([3, 3, 9], [4294967295])
    """
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    return b"".join(_packed(part, codec) for part in (keys.ood, keys.ind, keys.ignored))


def unpack(data: bytes | pa.Buffer) -> PixelKeys:
    """The keys that `pack` made bytes of.

    Raises:
        ResultsError: the bytes are damaged.
    """
    codec, place, found = pa.Codec("zstd"), 0, []
    stored = memoryview(data)
    try:
        for _ in range(3):
            count, width, size = _HEADER.unpack_from(stored, place)
            place += _HEADER.size
            planes = codec.decompress(stored[place : place + size], decompressed_size=count * width)
            found.append(_summed(np.frombuffer(planes, np.uint8).reshape(width, count), count))
            place += size
    except (struct.error, ValueError, OSError) as error:
        raise ResultsError(f"the keys of a score are damaged ({error}): import it again with --overwrite") from error
    return PixelKeys(*found)


def _packed(keys: NDArray[np.uint32], codec: pa.Codec) -> bytes:
    planes = np.zeros((4, len(keys)), np.uint8)
    largest, last = 0, np.uint32(0)
    for block in blocks(len(keys)):
        steps = keys[block].copy()
        steps[1:] -= keys[block][:-1]
        steps[0] -= last
        last, most = keys[block][-1], int(steps.max())
        for place in range(_bytes(most)):
            planes[place, block] = (steps >> np.uint32(8 * place)).astype(np.uint8)
        largest = max(largest, most)
    width = _bytes(largest)
    data = codec.compress(planes[:width], asbytes=True)
    return _HEADER.pack(len(keys), width, len(data)) + data


def _summed(planes: NDArray[np.uint8], count: int) -> NDArray[np.uint32]:
    keys = np.empty(count, np.uint32)
    last = np.uint32(0)
    for block in blocks(count):
        steps = keys[block]
        steps[:] = planes[0, block] if len(planes) else 0
        for place, plane in enumerate(planes[1:, block], 1):
            if plane.any():
                steps |= plane.astype(np.uint32) << np.uint32(8 * place)
        steps[0] += last
        np.cumsum(steps, out=steps)
        last = steps[-1]
    return keys


def _bytes(number: int) -> int:
    return (number.bit_length() + 7) // 8

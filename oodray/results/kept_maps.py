"""Maps that a run keeps where `--keep-maps` asks for them: 16 bits a pixel, nothing lost.

A map is cut into chunks of rows. In each, a pixel is stored as its difference to the one above it, the low bytes of
all pixels before the high ones, and compressed by zstd. Of images of 1280x720 a map takes 0.8 to 1.1 MB, a seventh less
than a PNG of 16 bits, and is written in a twentieth of its time (benchmarks/RESULTS-METRICS.md).
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.errors import ResultsError

CLASSES = "classes"
"""The name of the map of predicted classes, beside those of scores."""

ROWS_OF_A_CHUNK = 256
_LENGTHS = struct.Struct("<II")  # of a chunk: rows, compressed bytes
_LEVEL = 3


def encode_map(values: NDArray[np.uint16]) -> bytes:
    """A map `(H, W)` uint16 as bytes."""
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    parts = []
    for top in range(0, values.shape[0], ROWS_OF_A_CHUNK):
        chunk = values[top : top + ROWS_OF_A_CHUNK]
        steps = chunk.copy()
        steps[1:] -= chunk[:-1]  # modulo 65536
        planes = np.ascontiguousarray(np.stack([steps & 0xFF, steps >> 8]).astype(np.uint8))
        data = codec.compress(planes.tobytes(), asbytes=True)
        parts += [_LENGTHS.pack(len(chunk), len(data)), data]
    return b"".join(parts)


def decode_map(data: bytes, width: int) -> NDArray[np.uint16]:
    """The map of a width that `encode_map` made bytes of, `(H, W)` uint16.

    Raises:
        ResultsError: the bytes are damaged.

    >>> values = np.array([[1, 65535], [0, 7]], np.uint16)
    >>> decode_map(encode_map(values), 2).tolist()
    [[1, 65535], [0, 7]]
    """
    codec = pa.Codec("zstd")
    chunks, place = [], 0
    try:
        while place < len(data):
            rows, size = _LENGTHS.unpack_from(data, place)
            place += _LENGTHS.size
            raw = codec.decompress(data[place : place + size], decompressed_size=2 * rows * width, asbytes=True)
            low, high = np.frombuffer(raw, np.uint8).reshape(2, rows, width).astype(np.uint16)
            chunks.append(np.cumsum(low + (high << 8), axis=0, dtype=np.uint16))
            place += size
    except (struct.error, ValueError, OSError) as error:
        raise ResultsError(f"a map that the run kept is damaged ({error}): run again with --overwrite") from error
    return np.concatenate(chunks)

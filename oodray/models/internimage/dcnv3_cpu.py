"""DCNv3 on CPUs, compiled by numba: the function of `oodray.models.internimage.dcnv3`, for inference.

Numba alone makes scalar code of these loops. Hence two vector operations in LLVM's language: `_place_points` finds the
squares in which up to 16 points of a pixel lie and what the corners weigh, `_add_corners` sums the channels of a group.
LLVM makes of them what the machine has: 16 floats are one register of AVX-512, two of AVX2, four of NEON. Inputs are
float32 or bfloat16, sums float32.

No point is tested for the map's edge: one beside it is read from the nearest square that has four corners, with weights
of 0 for corners that do not exist. The displacement is floored before the pixel number is added: beside a large one a
float32 keeps few bits of the fraction.

The threads are Python's own, as many as torch has: numba's end the process when it forks, or when two threads call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from oodray.compiled import compiled

_LANES = 16
_SLICES_PER_THREAD = 2
_FAR = 1e9  # pixels: a point as far away is outside any map, and its number fits 32 bits

_FLOAT, _INT32, _INT16 = ir.FloatType(), ir.IntType(32), ir.IntType(16)


def dcnv3_cpu(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: int,
    stride: int,
    padding: int,
    dilation: int,
    offset_scale: float,
) -> Tensor:
    """As `oodray.models.internimage.dcnv3.dcnv3`, of checked shapes; the tensors are all float32 or all bfloat16.

    A `value` that is not finite may show wherever a point lies outside the map. An image of it has less than 2**31
    elements.
    """
    batch, height, width, channels = value.shape
    _, out_height, out_width, _ = offset.shape
    out = value.new_empty((batch, out_height, out_width, channels))
    if not out.numel():
        return out
    points, half = kernel_size * kernel_size, dilation * (kernel_size - 1) // 2
    run = _loops(channels // groups, points, min(_LANES, groups * points))
    arguments = (
        *map(_as_array, (value, offset, mask, out)),
        *_grid(kernel_size, dilation, groups, channels // groups),
        (height, width, channels),
        (out_height, out_width, groups),
        (stride, half - padding),
        np.float32(offset_scale),
    )
    _in_threads(lambda first, last: run(*arguments, first, last), batch * out_height)
    return out


@cache
def _grid(kernel_size: int, dilation: int, groups: int, group_channels: int) -> tuple[Any, Any, Any]:
    """Of each point of a pixel: its step along x, along y, and its group's first channel. Not to be written to."""
    steps = np.arange(kernel_size, dtype=np.float32) * dilation - dilation * (kernel_size - 1) // 2
    return (
        np.tile(steps.repeat(kernel_size), groups),
        np.tile(steps, kernel_size * groups),
        np.arange(groups, dtype=np.int32).repeat(kernel_size * kernel_size) * group_channels,
    )


def _as_array(tensor: Tensor) -> Any:
    """All elements in a row; numpy has no bfloat16, so the bits of those."""
    flat = tensor.detach().contiguous().view(-1)
    return (flat.view(torch.int16) if tensor.dtype == torch.bfloat16 else flat).numpy()


def _in_threads(compute: Callable[[int, int], None], rows: int) -> None:
    """`compute(first, last)` for slices of all rows, on as many threads as torch has."""
    threads = torch.get_num_threads()
    count = min(rows, threads * _SLICES_PER_THREAD)
    # Each thread takes the next slice, which an iterator of a list gives to one of them alone.
    slices = iter([(rows * index // count, rows * (index + 1) // count) for index in range(count)])

    def work() -> None:
        for first, last in slices:
            compute(first, last)

    others = [_threads(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(others)  # none of them writes any more
    for other in others:
        other.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="dcnv3")


@cache
def _loops(group_channels: int, points: int, lanes: int) -> Callable[..., None]:
    """The loops over rows `first..last` of the output; the compiler sees these three numbers as constants."""

    def run(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        value, offset, mask, out, steps_x, steps_y, group_starts, size, out_size, placing, scale, first, last
    ):
        height, width, channels = size
        out_height, out_width, groups = out_size
        stride, shift = placing
        count = groups * points
        starts = np.empty(count, np.int32)
        weights = np.empty(4 * count, np.float32)
        right = channels if width > 1 else 0
        below = channels * width if height > 1 else 0
        for row in range(first, last):
            image = row // out_height * (height * width * channels)
            centre_y = row % out_height * stride + shift
            for column in range(out_width):
                pixel = row * out_width + column
                centre = (column * stride + shift, centre_y)
                for begin in range(0, count, lanes):
                    at = min(begin, count - lanes)  # the last lanes may overlap those before
                    inputs = (offset, mask, steps_x, steps_y, group_starts)
                    _place_points(inputs, (starts, weights), pixel * count, at, count, centre, size, scale, lanes)
                for group in range(groups):
                    target = pixel * channels + group * group_channels
                    steps = (image, right, below, count)
                    _add_corners(value, out, (starts, weights), steps, group * points, target, points, group_channels)

    return compiled(run)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator,unused-ignore]
def _place_points(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    _typing, inputs, found, pixel, at, count, centre, size, scale, lanes
):
    """Square and corner weights of the points `at..at + lanes` of the `count` of a pixel, beginning at number `pixel`.

    Weights lie in four runs of `count`: upper left, upper right, lower left, lower right.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Vectors(builder, lanes.literal_value)
        offset, mask, *steps, group_starts = _pointers(context, builder, signature.args[0], args[0])
        starts, weights = _pointers(context, builder, signature.args[1], args[1])
        _, _, pixel, at, count, centre, size, scale, _ = args
        height, width, channels = (builder.trunc(size, _INT32) for size in cgutils.unpack_tuple(builder, size))
        centres = [builder.trunc(number, _INT32) for number in cgutils.unpack_tuple(builder, centre)]
        point = builder.add(pixel, at)
        displacements = code.load_pairs(offset, builder.mul(point, point.type(2)))

        axes = []
        for step, displacement, middle, extent in zip(steps, displacements, centres, (width, height), strict=True):
            moved = builder.fadd(code.load(step, at), displacement)
            axes.append(_place_and_weights(code, builder.fmul(code.splat(scale), moved), middle, extent))
        (x, left, right), (y, upper, lower) = axes

        corner = builder.add(builder.mul(y, code.splat(width)), x)
        start = builder.add(builder.mul(corner, code.splat(channels)), code.load(group_starts, at))
        code.store(start, starts, at)
        weight = code.load(mask, point)
        for run, (vertical, horizontal) in enumerate(itertools.product((upper, lower), (left, right))):
            product = builder.fmul(builder.fmul(weight, vertical), horizontal)
            code.store(product, weights, builder.add(at, builder.mul(count, at.type(run))))
        return context.get_dummy_value()

    return types.void(inputs, found, pixel, at, count, centre, size, scale, lanes), generate


def _place_and_weights(code: _Vectors, shift: Any, centre: Any, extent: Any) -> tuple[Any, Any, Any]:
    """Along one axis of `extent` places: the place before a point at `centre + shift`, its weight, that of the next.

    The place is the last but one at most, so that there is a next one; if there is only one place, the next weighs 0.
    """
    builder, floats, ints = code.builder, code.floats, code.ints
    floor = builder.call(code.floor(), [shift])
    for beyond, limit in ((">", floats(-_FAR)), ("<", floats(_FAR))):
        floor = builder.select(builder.fcmp_ordered(beyond, floor, limit), floor, limit)
    after = builder.fsub(shift, floor)
    before = builder.fsub(floats(1.0), after)

    floored = builder.add(code.splat(centre), builder.fptosi(floor, code.int_type))
    last = code.splat(builder.sub(extent, _INT32(2)))
    place = builder.select(builder.icmp_signed("<", floored, last), floored, last)
    place = builder.select(builder.icmp_signed(">", place, ints(0)), place, ints(0))
    moved = builder.sub(floored, place)
    here = [builder.icmp_signed("==", moved, ints(number)) for number in (-1, 0, 1)]
    none = floats(0.0)
    first = builder.select(here[1], before, builder.select(here[0], after, none))
    second = builder.select(here[1], after, builder.select(here[2], before, none))
    second = builder.select(builder.icmp_signed("==", extent, _INT32(1)), none, second)
    lost = builder.fcmp_unordered("uno", shift, shift)  # a NaN goes into the sum, not into an address
    return place, builder.select(lost, shift, first), builder.select(lost, shift, second)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator,unused-ignore]
def _add_corners(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    _typing, value, out, found, steps, first, target, points, group_channels
):
    """Weigh and add the corners of a group's points, from number `first` on, into its channels at `target`.

    `steps` are those to the image in `value`, to the right and to the lower corners, and between the runs of weights.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        code = _Vectors(builder, group_channels.literal_value)
        value, out = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in range(2))
        starts, weights = _pointers(context, builder, signature.args[2], args[2])
        image, right, below, count = cgutils.unpack_tuple(builder, args[3])
        _, _, _, _, first, target, _, _ = args
        moves = (first.type(0), right, below, builder.add(right, below))
        totals = [code.floats(0.0)] * 4  # of each corner, so that no sum waits for another
        for point in range(points.literal_value):
            number = builder.add(first, first.type(point))
            start = builder.add(image, builder.zext(builder.load(builder.gep(starts, [number])), image.type))
            for corner, move in enumerate(moves):
                weight = builder.load(builder.gep(weights, [number]))
                samples = code.load(value, builder.add(start, move))
                totals[corner] = code.add_product(totals[corner], code.splat(weight), samples)
                number = builder.add(number, count)
        total = builder.fadd(builder.fadd(totals[0], totals[1]), builder.fadd(totals[2], totals[3]))
        code.store(total, out, target)
        return context.get_dummy_value()

    return types.void(value, out, found, steps, first, target, points, group_channels), generate


def _pointers(context: Any, builder: Any, type_: Any, arrays: Any) -> list[Any]:
    """To the first elements of a tuple of arrays."""
    parts = zip(type_, cgutils.unpack_tuple(builder, arrays), strict=True)
    return [context.make_array(array_type)(context, builder, array).data for array_type, array in parts]


class _Vectors:
    """Writes operations on vectors of so many lanes; 16-bit integers in memory are the bits of bfloat16."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.builder, self.lanes = builder, lanes
        self.float_type, self.int_type = ir.VectorType(_FLOAT, lanes), ir.VectorType(_INT32, lanes)

    def floats(self, number: float) -> Any:
        return ir.Constant(self.float_type, [number] * self.lanes)

    def ints(self, number: int) -> Any:
        return ir.Constant(self.int_type, [number] * self.lanes)

    def splat(self, scalar: Any) -> Any:
        nothing = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        return self.builder.shuffle_vector(
            self.builder.insert_element(nothing, scalar, _INT32(0)), nothing, self.ints(0)
        )

    def load(self, pointer: Any, at: Any) -> Any:
        element, builder = pointer.type.pointee, self.builder
        place = builder.bitcast(builder.gep(pointer, [at]), ir.VectorType(element, self.lanes).as_pointer())
        if element != _INT16:
            return builder.load(place, align=4)
        bits = builder.zext(builder.load(place, align=2), self.int_type)
        return builder.bitcast(builder.shl(bits, self.ints(16)), self.float_type)

    def load_pairs(self, pointer: Any, at: Any) -> list[Any]:
        """The first and the second numbers of consecutive pairs."""
        pairs = _Vectors(self.builder, 2 * self.lanes).load(pointer, at)
        numbers = [ir.Constant(self.int_type, list(range(first, 2 * self.lanes, 2))) for first in range(2)]
        return [self.builder.shuffle_vector(pairs, pairs, chosen) for chosen in numbers]

    def store(self, vector: Any, pointer: Any, at: Any) -> None:
        builder, align = self.builder, 4
        if pointer.type.pointee == _INT16:
            vector, align = self._bfloat16(vector), 2
        builder.store(vector, builder.bitcast(builder.gep(pointer, [at]), vector.type.as_pointer()), align=align)

    def add_product(self, total: Any, left: Any, right: Any) -> Any:
        """`total + left * right`, fused where the machine can."""
        product = self.builder.fmul(left, right, flags=("contract",))
        return self.builder.fadd(total, product, flags=("contract",))

    def floor(self) -> Any:
        kind = ir.FunctionType(self.float_type, [self.float_type])
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.floor.v{self.lanes}f32")

    def _bfloat16(self, vector: Any) -> Any:
        """The nearest bfloat16, of two the even one."""
        builder = self.builder
        bits = builder.bitcast(vector, self.int_type)
        half = builder.add(builder.and_(builder.lshr(bits, self.ints(16)), self.ints(1)), self.ints(0x7FFF))
        rounded = builder.lshr(builder.add(bits, half), self.ints(16))
        lost = builder.fcmp_unordered("uno", vector, vector)
        return builder.trunc(builder.select(lost, self.ints(0x7FC0), rounded), ir.VectorType(_INT16, self.lanes))

"""What stands on a street: poles at the kerb, cars and trucks on the road."""

from __future__ import annotations

from functools import partial

import numpy as np

from oodray.datasets.demo.street import CAR, POLE, TRUCK, Street, Thing
from oodray.datasets.demo.textures import Colour, Shape, box, draw_shape, repeats, solid, unit_square

# Colours of poles: 1 metal, 2 board.
_SIGN: Shape = ((1, box(0.44, 0.0, 0.56, 1.0)), (2, box(0.08, 0.02, 0.92, 0.2)))
_LAMP: Shape = ((1, box(0.44, 0.0, 0.56, 1.0)), (1, box(0.1, 0.0, 0.56, 0.03)))
_BOLLARD: Shape = ((1, box(0.4, 0.0, 0.6, 1.0)), (2, box(0.4, 0.05, 0.6, 0.25)))

# Colours of vehicles: 1 body, 2 glass, 3 tyre, 4 lights, 5 plate, 6 cargo box.
_CAR_REAR: Shape = (
    (3, box(0.06, 0.75, 0.24, 1.0)),
    (3, box(0.76, 0.75, 0.94, 1.0)),
    (1, ((0.2, 0.0), (0.8, 0.0), (0.95, 0.42), (1.0, 0.5), (1.0, 0.86), (0.0, 0.86), (0.0, 0.5), (0.05, 0.42))),
    (2, ((0.25, 0.07), (0.75, 0.07), (0.86, 0.38), (0.14, 0.38))),
    (4, box(0.03, 0.48, 0.2, 0.6)),
    (4, box(0.8, 0.48, 0.97, 0.6)),
    (5, box(0.38, 0.6, 0.62, 0.72)),
)
_CAR_SIDE: Shape = (
    (1, ((0.0, 0.5), (0.18, 0.42), (0.32, 0.0), (0.7, 0.0), (0.86, 0.42), (1.0, 0.5), (1.0, 0.84), (0.0, 0.84))),
    (2, ((0.25, 0.4), (0.35, 0.08), (0.5, 0.08), (0.5, 0.4))),
    (2, ((0.54, 0.4), (0.54, 0.08), (0.68, 0.08), (0.79, 0.4))),
    (3, ((0.1, 0.6), (0.3, 1.0))),
    (3, ((0.7, 0.6), (0.9, 1.0))),
    (4, box(0.95, 0.52, 1.0, 0.62)),
)
_TRUCK_REAR: Shape = (
    (3, box(0.08, 0.85, 0.28, 1.0)),
    (3, box(0.72, 0.85, 0.92, 1.0)),
    (6, box(0.0, 0.0, 1.0, 0.84)),
    (3, box(0.0, 0.84, 1.0, 0.9)),
    (3, box(0.49, 0.04, 0.51, 0.84)),
    (4, box(0.02, 0.84, 0.16, 0.9)),
    (4, box(0.84, 0.84, 0.98, 0.9)),
)
_TRUCK_SIDE: Shape = (
    (6, box(0.0, 0.0, 0.72, 0.82)),
    (1, ((0.75, 0.2), (0.93, 0.2), (1.0, 0.52), (1.0, 0.86), (0.75, 0.86))),
    (2, ((0.82, 0.26), (0.91, 0.26), (0.97, 0.52), (0.82, 0.52))),
    (3, box(0.0, 0.8, 1.0, 0.88)),
    (3, ((0.08, 0.76), (0.22, 1.0))),
    (3, ((0.78, 0.76), (0.92, 1.0))),
)

_BODIES: tuple[Colour, ...] = (
    (0.72, 0.08, 0.08),
    (0.1, 0.2, 0.6),
    (0.85, 0.85, 0.87),
    (0.1, 0.1, 0.12),
    (0.5, 0.52, 0.56),
)
_CARGO: tuple[Colour, ...] = ((0.95, 0.75, 0.12), (0.95, 0.85, 0.3), (0.98, 0.62, 0.1))
_Vehicle = tuple[int, Shape, float, float]
# Class, shape, width and height in street units; each is as frequent as it is listed.
_VEHICLES: tuple[_Vehicle, ...] = (
    (CAR, _CAR_REAR, 0.36, 0.3),
    (CAR, _CAR_REAR, 0.36, 0.3),
    (CAR, _CAR_SIDE, 0.74, 0.27),
    (TRUCK, _TRUCK_REAR, 0.44, 0.56),
    (TRUCK, _TRUCK_SIDE, 1.0, 0.54),
)


def poles(street: Street) -> list[Thing]:
    """Two to five signs, lamps and bollards at the kerbs."""
    depths = street.rng.uniform(1.5, 4.2, street.rng.integers(2, 6))
    return [(float(z), partial(_draw_pole, street, float(z))) for z in depths]


def _draw_pole(street: Street, z: float) -> None:
    kinds = ((_SIGN, 0.42, 0.75), (_LAMP, 0.48, 1.5), (_BOLLARD, 0.3, 0.35))
    shape, width, height = kinds[street.rng.integers(len(kinds))]
    scale = street.width / z
    # Never thinner than about six of 640 columns, the narrowest that a coarse network can learn.
    indices = draw_shape(shape, round(height * scale), round(max(width * scale, 0.075 * street.width)))
    metal = street.choice([(0.5, 0.55, 0.6), (0.42, 0.47, 0.52)])
    board = street.choice([(0.1, 0.25, 0.75), (0.85, 0.85, 0.88), (0.75, 0.1, 0.1)])
    colour = solid((0, 0, 0), metal, board)[indices] * street.grain(indices.shape, 0.06, 0.06)
    side = street.rng.choice([-1, 1])
    if side > 0:
        indices, colour = indices[:, ::-1], colour[:, ::-1]
    street.stand(side * (street.kerb + 0.08), z, indices, colour, POLE)


def vehicles(street: Street) -> list[Thing]:
    """Three to six cars and trucks on the road."""
    things: list[Thing] = []
    for _ in range(street.rng.integers(3, 7)):
        vehicle = _VEHICLES[street.rng.integers(len(_VEHICLES))]
        z = street.between(2.6 if vehicle[0] == TRUCK else 1.5, 5.5)
        things.append((z, partial(_draw_vehicle, street, vehicle, z)))
    return things


def _draw_vehicle(street: Street, vehicle: _Vehicle, z: float) -> None:
    kind, shape, width, height = vehicle
    scale = street.between(0.9, 1.1) * street.width / z
    indices = draw_shape(shape, round(height * scale), round(width * scale))
    if street.rng.random() < 0.5:
        indices = indices[:, ::-1]
    fixed = ((0.12, 0.16, 0.2), (0.04, 0.04, 0.04), (0.85, 0.12, 0.08), (0.9, 0.88, 0.8))
    colours = solid((0, 0, 0), street.choice(_BODIES), *fixed, street.choice(_CARGO))
    x, y = unit_square(*indices.shape)
    ribs = 1 - 0.25 * (repeats(x, 0.09, 0.3) & (indices == 6))
    light = (1.1 - 0.3 * y) * ribs
    colour = colours[indices] * light[..., None] * street.grain(indices.shape, 0.05, 0.1)
    room = max(0.1, street.kerb - width / 2)
    street.stand(street.between(-room, room), z, indices, colour.astype(np.float32), kind)

"""Synthetic trunks, heads and legs with known labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from canvas import Array, Canvas, finish, paint_table
from labels import BACKGROUND, BODY, LEFT_LUNG, RIGHT_LUNG
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A synthetic CT with its labels, axes towards head, posterior and left."""

    #: float32, HU.
    hu: Array
    #: uint8: 0 background, 1 left lung, 2 right lung, 3 body.
    labels: NDArray[np.uint8]


def make(seed: int) -> Phantom:
    """The phantom of this seed: more chests than bellies, heads and legs together."""
    random = np.random.default_rng(seed)
    kind = random.choice(["thorax", "abdomen", "head", "legs"], p=[0.58, 0.18, 0.16, 0.08])
    canvas = Canvas(random)
    painters: dict[str, Callable[[Canvas], None]] = {
        "thorax": paint_thorax, "abdomen": paint_abdomen, "head": paint_head, "legs": paint_legs,
    }  # fmt: skip
    painters[str(kind)](canvas)
    if random.random() < 0.75:
        paint_table(canvas)
    finish(canvas)
    return Phantom(hu=canvas.hu, labels=canvas.labels)


def paint_trunk(canvas: Canvas, width: float, depth: float) -> Array:
    """Skin, fat, muscle; returns the trunk's inside measure: 1 on the skin, less within."""
    shoulders = 1 + canvas.uniform(0.0, 0.35) * np.clip((canvas.z - canvas.uniform(60, 150)) / 60, 0, 1)
    flat = canvas.uniform(2.0, 2.8)
    across, deep = np.abs(canvas.x / (width * shoulders)), np.abs(canvas.y / depth)
    skin = np.asarray((across**flat + deep**flat) ** (1 / flat), dtype=np.float32)
    canvas.paint(skin < 1, canvas.uniform(-115, -85), BODY)
    fat = canvas.uniform(0.03, 0.18)
    muscle = canvas.uniform(35, 65) + canvas.smooth(12, 12)
    canvas.paint(skin < 1 - fat, muscle, BODY)
    if canvas.random.random() < 0.4:
        paint_breasts(canvas, width, depth)
    return skin


def paint_breasts(canvas: Canvas, width: float, depth: float) -> None:
    """Two half-balls of fat and gland in front."""
    radius, height = canvas.uniform(35, 65), canvas.uniform(-40, 40)
    for side in (-1, 1):
        breast = canvas.ellipsoid((height, -depth * 0.9, side * width * 0.5), (radius, radius, radius)) < 1
        canvas.paint(breast & (canvas.labels == BACKGROUND), -95 + canvas.smooth(15, 35), BODY)


def paint_spine(canvas: Canvas, depth: float) -> None:
    """Vertebrae with discs between, at the back."""
    row = depth * canvas.uniform(0.45, 0.6)
    column = np.hypot(canvas.x, canvas.y - row)
    disc = np.mod(canvas.z, 28) < 6
    canvas.paint(column < 19, np.where(disc, 90.0, canvas.uniform(140, 260)).astype(np.float32))
    arch = canvas.ellipsoid((0, row + 32, 0), (1e4, 22, 8)) < 1
    canvas.paint(arch & (canvas.labels == BODY), canvas.uniform(200, 400))


def paint_thorax(canvas: Canvas) -> None:
    """A chest: from the neck to the upper abdomen, or the part of it that the scan covers."""
    width, depth = canvas.uniform(130, 185), canvas.uniform(90, 130)
    skin = paint_trunk(canvas, width, depth)
    wall = canvas.uniform(0.72, 0.86)
    paint_ribs(canvas, skin, wall)
    paint_spine(canvas, depth)
    paint_abdominal_organs(canvas, width, depth, base=-canvas.uniform(60, 130))
    lungs = lung_shapes(canvas, width * wall, depth * wall)
    paint_mediastinum(canvas, width, depth)
    paint_lungs(canvas, lungs)
    paint_airways(canvas, depth)
    if canvas.random.random() < 0.4:
        paint_arms(canvas, width)


def paint_ribs(canvas: Canvas, skin: Array, wall: float) -> None:
    """Slanted arcs of bone in the chest wall, and the breastbone."""
    slant = canvas.z + 0.35 * canvas.y
    shell = (skin > wall + 0.01) & (skin < wall + 0.09)
    canvas.paint(shell & (np.mod(slant, 30) < 10), canvas.uniform(200, 500))
    sternum = shell & (np.abs(canvas.x) < 18) & (canvas.y < 0)
    canvas.paint(sternum, canvas.uniform(120, 250))


def paint_abdominal_organs(canvas: Canvas, width: float, depth: float, base: float) -> None:
    """Liver on the right, stomach with its gas bubble and spleen on the left, bowel gas below."""
    inner = canvas.labels == BODY
    cavity = (canvas.ellipsoid((base - 120, 0, 0), (150, depth * 0.75, width * 0.78), 2.6) < 1) & inner
    canvas.paint(cavity, canvas.uniform(-100, 20) + canvas.smooth(20, 30))
    liver = canvas.ellipsoid((base - 40, -5, -width * 0.35), (95, depth * 0.7, width * 0.5)) < 1
    canvas.paint(liver & inner, canvas.uniform(45, 120))
    spleen = canvas.ellipsoid((base - 30, depth * 0.35, width * 0.55), (50, 30, 25)) < 1
    canvas.paint(spleen & inner, canvas.uniform(45, 130))
    place = (
        base - canvas.uniform(20, 50),
        -depth * canvas.uniform(0.1, 0.4),
        width * canvas.uniform(0.3, 0.5),
    )
    radius = canvas.uniform(25, 50)
    stomach = canvas.ellipsoid(place, (radius, radius, radius * 1.2)) < 1
    canvas.paint(stomach & inner, canvas.uniform(0, 60))
    # Gas rises: to the front of a patient who lies on the back.
    level = place[1] - radius * canvas.uniform(-0.4, 0.8)
    canvas.paint(stomach & inner & (canvas.y < level), -1000 + canvas.smooth(10, 15))
    for _ in range(int(canvas.random.integers(0, 7))):
        where = (
            base - canvas.uniform(60, 220),
            -depth * canvas.uniform(0, 0.6),
            width * canvas.uniform(-0.6, 0.6),
        )
        size = tuple(canvas.uniform(6, 26) for _ in range(3))
        canvas.paint(
            (canvas.ellipsoid(where, (size[0], size[1], size[2])) < 1) & inner, canvas.uniform(-1000, -850)
        )


def lung_shapes(canvas: Canvas, half_width: float, half_depth: float) -> dict[int, NDArray[np.bool_]]:
    """One dome-topped shape per side, hollowed below by the diaphragm and in the middle by the mediastinum."""
    shapes = {}
    gap = canvas.uniform(0.0, 14.0)
    for label, side in ((RIGHT_LUNG, -1), (LEFT_LUNG, 1)):
        top, size = canvas.uniform(70, 150), canvas.uniform(0.85, 1.0)
        height = canvas.uniform(150, 260)
        centre = (top - height, 5.0, side * half_width * canvas.uniform(0.44, 0.5))
        lung = (
            canvas.ellipsoid(
                centre, (height, half_depth * size, half_width * canvas.uniform(0.46, 0.56)), 2.6
            )
            < 1
        )
        # The front edges of both lungs may meet behind the breastbone, so the gap there can be nothing.
        lung &= canvas.x * side > np.where(canvas.y < -half_depth * 0.4, gap * 0.3, gap + 4)
        dome = (top - height * canvas.uniform(0.75, 1.1), canvas.uniform(-25, 10), side * half_width * 0.5)
        lung &= (
            canvas.ellipsoid((dome[0] - 90, dome[1], dome[2]), (100, half_depth * 0.95, half_width * 0.6)) > 1
        )
        lung &= canvas.z > dome[0] - canvas.uniform(20, 70)
        shapes[label] = lung & (canvas.labels == BODY)
    return shapes


def paint_mediastinum(canvas: Canvas, width: float, depth: float) -> None:
    """Mark heart, vessels and gullet as tissue that lungs cannot fill (heart to the left)."""
    contrast = canvas.uniform(35, 60) if canvas.random.random() < 0.5 else canvas.uniform(120, 380)
    heart = canvas.ellipsoid(
        (-canvas.uniform(10, 50), -depth * canvas.uniform(0.1, 0.35), canvas.uniform(5, 38)),
        (canvas.uniform(45, 65), canvas.uniform(38, 55), canvas.uniform(45, 70)),
    )
    vessels = canvas.ellipsoid((45, -depth * 0.15, 0), (80, depth * 0.4, canvas.uniform(20, 38)), 2.5) < 1
    aorta = np.hypot(canvas.x - canvas.uniform(12, 28), canvas.y - depth * 0.35) < canvas.uniform(10, 17)
    aorta &= canvas.z < 60
    gullet = np.hypot(canvas.x - 5, canvas.y - depth * 0.28) < 9
    spine = np.hypot(canvas.x, canvas.y - depth * 0.5) < canvas.uniform(24, 32)
    for part, hu in (
        (vessels, canvas.uniform(-60, 80)),
        (heart < 1, contrast),
        (aorta, contrast),
        (gullet, 30.0),
    ):
        canvas.paint(part & (canvas.labels == BODY), hu)
        canvas.solid |= part
    canvas.solid |= spine
    paint_spine(canvas, depth)


def paint_lungs(canvas: Canvas, shapes: dict[int, NDArray[np.bool_]]) -> None:
    """Fill the lungs: air, vessels, and at random emphysema, consolidation, effusion, collapse."""
    base = canvas.uniform(-900, -680)
    for label, shape in shapes.items():
        lung = shape & ~canvas.solid
        if canvas.random.random() < 0.06:
            continue  # a lung that was removed or has collapsed
        if canvas.random.random() < 0.3:
            lung = _collapse(canvas, lung)
        density = base + canvas.uniform(-40, 40) + canvas.smooth(40, 25) + 0.4 * canvas.y
        tubes = np.abs(canvas.smooth(11, 1.0)) + np.abs(canvas.smooth(11, 1.0))
        density = np.where(tubes < canvas.uniform(0.12, 0.3), canvas.uniform(-300, 40), density).astype(
            np.float32
        )
        if canvas.random.random() < 0.4:
            holes = canvas.smooth(canvas.uniform(8, 35), 1.0) > canvas.uniform(-0.3, 1.3)
            density = np.where(holes, canvas.uniform(-1000, -955), density).astype(np.float32)
        if canvas.random.random() < 0.3:
            dense = canvas.smooth(25, 1.0) > canvas.uniform(1.6, 2.3)
            density = np.where(dense, canvas.uniform(-500, -150), density).astype(np.float32)
        canvas.paint(lung, np.clip(density, -1000, 100), label)


def _collapse(canvas: Canvas, lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take fluid at the back, or a solid part above or below, away from a lung."""
    rows, slices = canvas.y[lung], canvas.z[lung]
    if rows.size == 0:
        return lung
    how = canvas.random.integers(0, 3)
    part = canvas.uniform(0.1, 0.5)
    if how == 0:
        return np.asarray(lung & (canvas.y + canvas.smooth(60, 4) < np.quantile(rows, 1 - part)))
    if how == 1:
        return np.asarray(lung & (canvas.z + canvas.smooth(60, 6) < np.quantile(slices, 1 - part)))
    return np.asarray(lung & (canvas.z + canvas.smooth(60, 6) > np.quantile(slices, part)))


def paint_airways(canvas: Canvas, depth: float) -> None:
    """Windpipe and main bronchi: gas that is not lung."""
    fork, row, radius = canvas.uniform(10, 50), depth * canvas.uniform(-0.05, 0.2), canvas.uniform(6, 11)
    trachea = (np.hypot(canvas.x + canvas.uniform(-5, 8), canvas.y - row) < radius) & (canvas.z > fork)
    for side in (-1, 1):
        along = (fork - canvas.z) * canvas.uniform(0.7, 1.3)
        bronchus = np.hypot(canvas.x - side * along, canvas.y - row) < radius * 0.8
        trachea |= bronchus & (canvas.z <= fork) & (canvas.z > fork - canvas.uniform(20, 45))
    wall = ndimage.binary_dilation(trachea) & ~trachea & (canvas.labels != BACKGROUND)
    canvas.paint(wall, canvas.uniform(-50, 40), BODY)
    canvas.paint(trachea & (canvas.labels != BACKGROUND), -995 + canvas.smooth(10, 8), BODY)


def paint_arms(canvas: Canvas, width: float) -> None:
    """Arms beside the trunk."""
    radius, gap = canvas.uniform(28, 42), canvas.uniform(2, 20)
    for side in (-1, 1):
        middle = side * (width + radius + gap)
        arm = np.hypot(canvas.x - middle, canvas.y - canvas.uniform(-20, 40))
        canvas.paint((arm < radius) & (canvas.labels == BACKGROUND), -90, BODY)
        canvas.paint(arm < radius * 0.8, canvas.uniform(35, 60))
        canvas.paint(arm < radius * 0.3, canvas.uniform(300, 900))


def paint_abdomen(canvas: Canvas) -> None:
    """A belly without any lung, with much gas in the bowel."""
    width, depth = canvas.uniform(130, 190), canvas.uniform(85, 140)
    paint_trunk(canvas, width, depth)
    paint_spine(canvas, depth)
    paint_abdominal_organs(canvas, width, depth, base=canvas.uniform(100, 260))
    for _ in range(int(canvas.random.integers(2, 12))):
        centre = (
            canvas.uniform(-150, 150),
            -depth * canvas.uniform(-0.1, 0.7),
            width * canvas.uniform(-0.7, 0.7),
        )
        loop = (
            canvas.ellipsoid(centre, (canvas.uniform(8, 45), canvas.uniform(8, 28), canvas.uniform(8, 40)))
            < 1
        )
        canvas.paint(loop & (canvas.labels == BODY), canvas.uniform(-1000, -820) + canvas.smooth(12, 40))
    if canvas.random.random() < 0.4:
        paint_arms(canvas, width)


def paint_head(canvas: Canvas) -> None:
    """Skull, brain and the gas of sinuses, mouth and throat."""
    centre = (canvas.uniform(-20, 80), 0.0, 0.0)
    radii = (canvas.uniform(85, 110), canvas.uniform(80, 100), canvas.uniform(65, 80))
    head = canvas.ellipsoid(centre, radii)
    neck = (np.hypot(canvas.x, canvas.y - 20) < canvas.uniform(50, 70)) & (canvas.z < centre[0])
    canvas.paint((head < 1) | neck, canvas.uniform(20, 60), BODY)
    canvas.paint((head < 0.85) & (head > 0.7), canvas.uniform(700, 1400))
    canvas.paint(head < 0.7, canvas.uniform(25, 45) + canvas.smooth(15, 6))
    for _ in range(int(canvas.random.integers(2, 12))):
        place = (centre[0] - canvas.uniform(10, 80), -canvas.uniform(10, 75), canvas.uniform(-40, 40))
        sinus = (
            canvas.ellipsoid(place, (canvas.uniform(6, 22), canvas.uniform(6, 20), canvas.uniform(6, 18))) < 1
        )
        canvas.paint(sinus & (canvas.labels == BODY), canvas.uniform(-1000, -900))
    throat = (np.hypot(canvas.x, canvas.y - 5) < canvas.uniform(6, 11)) & (canvas.z < centre[0] - 40)
    canvas.paint(throat & (canvas.labels == BODY), -990)


def paint_legs(canvas: Canvas) -> None:
    """Two legs, or one."""
    radius, gap = canvas.uniform(45, 80), canvas.uniform(2, 40)
    for side in (-1, 1):
        leg = np.hypot(canvas.x - side * (radius + gap / 2), canvas.y)
        canvas.paint(leg < radius, -95, BODY)
        canvas.paint(leg < radius * 0.85, canvas.uniform(40, 65))
        canvas.paint((leg < radius * 0.28) & (leg > radius * 0.15), canvas.uniform(500, 1300))

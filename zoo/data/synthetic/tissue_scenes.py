"""Scenes of the optical looks and of the projection: cells, glands, the fundus, a chest seen through."""

from __future__ import annotations

import cv2
import numpy as np

from zoo.data.synthetic.canvas import Canvas, populate
from zoo.data.synthetic.noise import Mask, chance, log_uniform
from zoo.data.synthetic.scenes import scaled, vertices
from zoo.data.synthetic.shapes import CIRCLE, Outline, fill, lobes, organ, place, random_shape, star, tube, wall


def cells(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cells of one kind, apart or in clusters, with or without nuclei, protrusions and debris."""
    pitch = canvas.side * log_uniform(rng, 0.09, 0.4)
    radius, odd = pitch * rng.uniform(0.4, 0.75), rng.uniform(0.1, 0.5)
    shapes = (organ, lobes, tube, random_shape)
    unusual, nucleus = shapes[int(rng.integers(len(shapes)))], rng.uniform(0.3, 0.6) if chance(rng, 0.4) else 0.0
    present, roughness = rng.uniform(0.4, 1), rng.uniform(0.08, 0.5)
    for centre in rng.permutation(vertices(rng, canvas.shape, pitch)):
        if not chance(rng, present):
            continue
        size = radius * rng.uniform(0.6, 1.2)
        at = (float(centre[0]), float(centre[1]))
        if chance(rng, odd):
            canvas.paint(unusual(rng, canvas.shape, at, size), "organ", True)
            continue
        outline = place(rng, star(rng, roughness), at, size)
        canvas.paint(fill(canvas.shape, outline), "organ", True)
        if nucleus:
            canvas.paint(fill(canvas.shape, scaled(outline, nucleus)), "lesion", nucleus > 0.5)
    populate(canvas, rng, np.ones(canvas.shape, np.bool_), int(rng.integers(0, 8)), (0.005, 0.03), labelled=0.1)


def glands(canvas: Canvas, rng: np.random.Generator) -> None:
    """Walls around lumina in stroma, and nuclei strewn over all: histology."""
    everywhere = np.ones(canvas.shape, np.bool_)
    canvas.paint(everywhere, "muscle", False)
    pitch = canvas.side * rng.uniform(0.2, 0.5)
    for centre in vertices(rng, canvas.shape, pitch):
        if chance(rng, 0.8):
            at, size = (float(centre[0]), float(centre[1])), pitch * rng.uniform(0.3, 0.65)
            draw = wall if chance(rng, 0.5) else random_shape
            index = canvas.paint(draw(rng, canvas.shape, at, size), "organ", True)
            if index and chance(rng, 0.5):
                lumen = place(rng, star(rng, 0.4), at, size * 0.4)
                canvas.paint(fill(canvas.shape, lumen), "fat", chance(rng, 0.3), canvas.seen(index))
    nuclei = np.zeros(canvas.shape, np.uint8)
    size = max(1.2, canvas.side * rng.uniform(0.006, 0.014))
    for y, x in rng.uniform(0, 1, (int(rng.integers(40, 250)), 2)) * canvas.shape:
        axes = (round(8 * size), round(8 * size * rng.uniform(0.4, 1)))
        cv2.ellipse(nuclei, (round(8 * x), round(8 * y)), axes, rng.uniform(0, 180), 0, 360, 1, -1, shift=3)
    canvas.paint(nuclei.view(np.bool_), "vessel", False)


def fundus(canvas: Canvas, rng: np.random.Generator) -> None:
    """A retina: a disc with its cup, vessels from it, a macula and lesions, in a round view."""
    height, width = canvas.shape
    view = CIRCLE * (min(height, width) * rng.uniform(0.46, 0.6)) + (width / 2, height / 2)
    inside = fill(canvas.shape, view)
    canvas.paint(inside, "muscle", False)
    side = -1 if chance(rng, 0.5) else 1
    at = (height / 2 + rng.normal(0, 0.03) * height, width / 2 + side * rng.uniform(0.1, 0.3) * width)
    macula = (at[0], width - at[1])
    canvas.paint(organ(rng, canvas.shape, macula, canvas.side * rng.uniform(0.06, 0.14)), "grey", False, inside)
    populate(canvas, rng, inside, int(rng.integers(1, 8)), (0.015, 0.12), ("lesion", "fluid"), labelled=0.8)
    disc = place(rng, star(rng, 0.05), at, canvas.side * rng.uniform(0.05, 0.12), rng.uniform(0.75, 1))
    canvas.paint(fill(canvas.shape, disc), "fat", True, inside)
    canvas.paint(fill(canvas.shape, scaled(disc, rng.uniform(0.3, 0.7))), "white", True, inside)
    vessels = np.zeros(canvas.shape, np.bool_)
    for _ in range(rng.integers(3, 9)):
        calibre = max(1.0, canvas.side * rng.uniform(0.005, 0.018))
        vessels |= tube(rng, canvas.shape, at, canvas.side * rng.uniform(0.25, 0.5), calibre)
    canvas.paint(vessels, "vessel", chance(rng, 0.4), inside)


def chest(canvas: Canvas, rng: np.random.Generator) -> None:
    """A projection of a chest: lungs, heart, spine, clavicles and ribs that overlap."""
    height, width = canvas.shape
    frame = np.array([width, height])
    canvas.paint(fill(canvas.shape, (star(rng, 0.08) * (0.47, 0.56) + (0.5, 0.55)) * frame), "muscle", False)
    ribs_labelled = chance(rng, 0.2)
    lung = np.array([rng.uniform(0.13, 0.19), rng.uniform(0.27, 0.38)])
    for side in (-1, 1):
        centre = np.array([0.5 + side * rng.uniform(0.19, 0.25), rng.uniform(0.42, 0.5)])
        canvas.paint(fill(canvas.shape, (centre + star(rng, 0.22) * lung) * frame), "gas", not ribs_labelled)
    spine = np.array([[0.5, -0.1], [0.5 + rng.normal(0, 0.01), 0.5], [0.5, 1.1]]) * frame
    mask = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(mask, [np.round(spine).astype(np.int32)], False, 1, max(2, round(0.07 * width)))
    canvas.paint(mask.view(np.bool_), "bone", False)
    heart = organ(rng, canvas.shape, (height * rng.uniform(0.58, 0.68), width * 0.55), canvas.side * 0.2)
    canvas.paint(heart, "organ", not ribs_labelled)
    count, labelled = int(rng.integers(5, 10)), 0.8 if ribs_labelled else 0.0
    slope, thick = rng.uniform(0.05, 0.25), max(2, round(canvas.side * rng.uniform(0.012, 0.025)))
    t = np.linspace(0, 1, 20)
    for i in range(count):
        for side in (-1, 1):
            y = 0.1 + 0.7 * i / count + slope * t + 0.12 * np.sin(np.pi * t) + rng.normal(0, 0.004)
            x = 0.5 + side * (0.04 + 0.36 * np.sin(np.pi * 0.55 * t))
            rib = np.zeros(canvas.shape, np.uint8)
            line = np.round(np.stack([x, y], axis=1) * frame * 8).astype(np.int32)
            cv2.polylines(rib, [line], False, 1, thick, shift=3)
            canvas.paint(rib.view(np.bool_), "bone", chance(rng, labelled))
    everywhere = np.ones(canvas.shape, np.bool_)
    populate(
        canvas, rng, everywhere, int(rng.integers(0, 5)), (0.02, 0.12), ("lesion", "vessel", "fluid"), labelled=0.7
    )


def limb(canvas: Canvas, rng: np.random.Generator) -> None:
    """A projection of long bones, implants, or a breast with masses: soft outline and a few overlapping shapes."""
    middle = (canvas.shape[0] / 2, canvas.shape[1] / 2)
    soft = random_shape(rng, canvas.shape, middle, canvas.side * rng.uniform(0.4, 0.7))
    canvas.paint(soft, "muscle", chance(rng, 0.2))
    populate(canvas, rng, soft, int(rng.integers(1, 5)), (0.1, 0.4), ("bone", "bone", "fat", "organ"), nested=0.5)
    populate(canvas, rng, soft, int(rng.integers(1, 7)), (0.02, 0.12), ("lesion", "bone", "vessel"))


def joint(canvas: Canvas, rng: np.random.Generator) -> None:
    """A projection of one or two long bones that end at a joint: a shaft, a round head on a neck, a knob or two."""
    soft = np.ones(canvas.shape, np.bool_)
    if chance(rng, 0.5):
        middle = (canvas.shape[0] / 2, canvas.shape[1] / 2)
        soft = fill(canvas.shape, place(rng, star(rng, 0.15), middle, canvas.side * rng.uniform(0.45, 0.8)))
    canvas.paint(soft, "muscle", False)
    meeting = np.array(canvas.shape[::-1]) * rng.uniform(0.25, 0.75, 2)
    if chance(rng, 0.6):
        at = (float(meeting[1]), float(meeting[0]))
        canvas.paint(random_shape(rng, canvas.shape, at, canvas.side * rng.uniform(0.1, 0.4)), "bone", False)
    direction = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 3)):
        canvas.paint(_long_bone(rng, canvas, meeting, direction), "bone", True)
        direction += rng.uniform(0.6, 1.4) * np.pi
    populate(canvas, rng, soft, int(rng.integers(0, 4)), (0.02, 0.15), ("bone", "vessel", "lesion"), labelled=0.5)


def _long_bone(rng: np.random.Generator, canvas: Canvas, end: Outline, direction: float) -> Mask:
    """From the joint at `end` (x, y) to beyond the image."""
    thick = canvas.side * log_uniform(rng, 0.06, 0.3)
    along, across = (np.array([np.cos(a), np.sin(a)]) for a in (direction, direction + np.pi / 2))
    neck = end + along * thick * rng.uniform(0.6, 1.5) + across * thick * rng.uniform(-1, 1)
    far = neck + along * 2 * canvas.side
    half = thick / 2 * np.array([rng.uniform(1, 1.6), rng.uniform(0.6, 1)])
    shaft = np.stack([neck - across * half[0], neck + across * half[0], far + across * half[1], far - across * half[1]])
    stem = thick * rng.uniform(0.3, 0.45)
    bridge = np.stack([end - across * stem, end + across * stem, neck + across * half[0], neck - across * half[0]])
    bone = fill(canvas.shape, shaft) | fill(canvas.shape, bridge)
    for middle, size in ((end, rng.uniform(0.45, 0.8)), (neck - across * half[0], rng.uniform(0.2, 0.5))):
        at = (float(middle[1]), float(middle[0]))
        bone |= fill(canvas.shape, place(rng, star(rng, 0.08), at, thick * size, rng.uniform(0.8, 1)))
    return bone

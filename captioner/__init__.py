"""Image captioning for Keras 3 and TensorFlow.

Train a captioner, caption a folder of photos, export one SavedModel:

```python
import captioner

captioner.train("flickr8k:flickr8k", "run", backbone="vgg16")
for result in captioner.caption("photos", preset="run/preset"):
    print(result.path, result.caption or result.error)
captioner.evaluate("run/preset", "flickr8k:flickr8k").scores
captioner.evaluate("captions.csv", "flickr8k:flickr8k", output="scored").intervals
captioner.export("run/preset", "exported")
```

`ImageCaptioner` is the task behind these verbs; every other public name below is
one of its parts. Names are loaded when they are first used, so that importing this
package does not import TensorFlow.
"""

import importlib
import sys
import types

_HOMES = {
    "BeamSampler": "samplers",
    "CaptionCrossentropy": "caption_crossentropy",
    "CaptionModel": "caption_model",
    "CaptionPreprocessor": "preprocessor",
    "CaptionResult": "caption_result",
    "CaptionScorer": "metrics",
    "CaptionStyle": "caption_style",
    "Constraints": "samplers",
    "DiverseBeamSampler": "samplers",
    "EnsembleCaptioner": "ensemble_captioner",
    "FeatureCache": "feature_cache",
    "GenerateResult": "generate_result",
    "GreedySampler": "samplers",
    "ImageCaptioner": "image_captioner",
    "ImageConverter": "image_converter",
    "ImageError": "image_files",
    "PresetError": "presets",
    "RandomSampler": "samplers",
    "Tokenizer": "tokenizer",
    "VisionBackbone": "backbones",
    "backbone_names": "backbones",
    "image_reader": "input_pipeline",
    "list_presets": "presets",
    "load_dataset": "datasets",
    "load_image": "image_files",
    "training_batches": "input_pipeline",
    # Verbs: one file, one function of its name.
    "caption": "caption",
    "evaluate": "evaluate",
    "export": "export",
    "merge": "merge",
    "train": "train",
}
_SUBPACKAGES = ("backbones", "datasets", "decoders", "metrics", "samplers")

__all__ = ["__version__", *_HOMES, *_SUBPACKAGES]


def __getattr__(name):
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version(__name__)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(home, name)


def __dir__():
    return __all__


class _Package(types.ModuleType):
    def __setattr__(self, name, value):
        # Importing captioner.train would put the module where the function of
        # that name belongs; `captioner.train(...)` shall work in any order.
        if isinstance(value, types.ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

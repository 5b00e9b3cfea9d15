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

_HOMES = {
    "BeamSampler": "samplers",
    "CaptionCrossentropy": "tasks.caption_crossentropy",
    "CaptionModel": "tasks.caption_model",
    "CaptionPreprocessor": "tasks.preprocessor",
    "CaptionResult": "captioning.result",
    "CaptionScorer": "metrics",
    "CaptionStyle": "captioning.style",
    "Constraints": "samplers",
    "DiverseBeamSampler": "samplers",
    "EnsembleCaptioner": "tasks.ensemble_captioner",
    "FeatureCache": "features.feature_cache",
    "GenerateResult": "tasks.generate_result",
    "GreedySampler": "samplers",
    "ImageCaptioner": "tasks.image_captioner",
    "ImageConverter": "images.image_converter",
    "ImageError": "images.image_files",
    "PresetError": "presets",
    "RandomSampler": "samplers",
    "Task": "tasks.task",
    "Tokenizer": "tokenizers.tokenizer",
    "VisionBackbone": "backbones",
    "backbone_names": "backbones",
    "image_reader": "features.input_pipeline",
    "list_presets": "presets",
    "load_dataset": "datasets",
    "load_image": "images.image_files",
    "training_batches": "features.input_pipeline",
    # Verbs: one file, one function of its name.
    "caption": "captioning.caption",
    "evaluate": "evaluating.evaluate",
    "export": "exporting.export",
    "merge": "captioning.merge",
    "train": "training.train",
}
# What imports Keras, which has to have the backend that it needs.
_NEEDS_KERAS = ("backbones", "decoders", "evaluating", "exporting", "features")
_NEEDS_KERAS += ("images.image_converter", "samplers", "tasks", "training")
_SUBPACKAGES = ("backbones", "datasets", "decoders", "metrics", "samplers")

__all__ = ["__version__", *_HOMES, *_SUBPACKAGES]


def __getattr__(name):
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version(__name__)
    if name not in _HOMES and name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, name)
    if home.startswith(_NEEDS_KERAS):
        # Or Keras would say it, in a traceback of several screens.
        importlib.import_module(f"{__name__}.keras_settings").check_backend()
    module = importlib.import_module(f"{__name__}.{home}")
    return module if name in _SUBPACKAGES else getattr(module, name)


def __dir__():
    return __all__

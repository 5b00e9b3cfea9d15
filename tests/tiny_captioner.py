"""A captioner that is made in seconds, for tests of what is done with one."""

import functools
from pathlib import Path

import keras

import captioner
from captioner.datasets import load_dataset

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"


@functools.cache
def tiny_captioner():
    """An `ImageCaptioner` that learnt ten sample photos and some scenes by heart.

    All tests of a session share it.
    """
    keras.utils.set_random_seed(1)
    samples = load_dataset(f"csv:{SAMPLES / 'captions.csv'}", split_fractions=(1, 0, 0))
    examples = list(samples.examples("train"))
    examples += load_dataset("scenes:64").examples("train")[:54]
    images = [example["image"] for example in examples]
    captions = [example["captions"] for example in examples]
    tokenizer = captioner.Tokenizer.from_captions(sum(captions, []))
    converter = captioner.ImageConverter((64, 64))
    backbone = captioner.VisionBackbone(
        "efficientnet_lite2", image_size=(64, 64), weights="imagenet"
    )
    model = captioner.CaptionModel(
        tokenizer.vocabulary_size,
        backbone.feature_shape,
        backbone,
        fusion="additive",
        num_layers=1,
        hidden_dim=32,
        dropout=0.0,
    )
    made = captioner.ImageCaptioner(
        model, captioner.CaptionPreprocessor(converter, tokenizer, 12)
    )
    _, read = captioner.image_reader(images, converter)
    features = backbone(read(range(len(images)))).numpy()
    reader = "image_features", lambda indices: features[indices]
    batches, steps = captioner.training_batches(reader, captions, 16, 80, seed=1)
    made.compile(keras.optimizers.Adam(0.01))
    made.fit(batches, steps_per_epoch=steps, epochs=80, verbose=0)
    return made

"""Proof that it learns: drawn scenes, from nothing to the exact caption."""

import numpy as np

import captioner


def exactly_right(model, split):
    """Share of the captions of a split that are right to the word."""
    captions = model.generate([example["image"] for example in split])
    return np.mean([[text] == e["captions"] for text, e in zip(captions, split)])


def test_it_learns_drawn_scenes(tmp_path):
    preset = captioner.train(
        "scenes:2000",
        tmp_path / "run",
        image_size=128,
        num_layers=1,
        hidden_dim=256,
        dropout=0.1,
        label_smoothing=0.0,
        min_count=1,
        flips=False,
        epochs=12,
        learning_rate=2e-3,
    )
    model = captioner.ImageCaptioner.from_preset(preset)
    scenes = captioner.load_dataset("scenes:2000")
    seen = {example["image"].tobytes() for example in scenes.examples("train")}
    dev, test = scenes.examples("dev"), scenes.examples("test")
    assert not any(example["image"].tobytes() in seen for example in [*dev, *test])
    assert exactly_right(model, dev) >= 0.95
    # Captions that never occurred in training; a guess is right once in 528.
    assert exactly_right(model, test) >= 0.7

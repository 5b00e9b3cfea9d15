"""Steps per second of training: compiled by XLA and not, with CIDEr optimisation.

    python benchmarks/train.py [--mixer transformer] [--fusion attention] [--steps 5]

The sizes are those of EfficientNet-Lite2's grid and Flickr8k; features are random and
captions drawn with Flickr8k's lengths, since speed does not depend on what they say.
Prints a table and one JSON line: seconds a step (the median), how long the first took
(tracing, and compiling), the share of real tokens, and of the time the reward took.
"""

import argparse
import json
import statistics
import time

import keras
import numpy as np

from captioner.images.image_converter import ImageConverter
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.cider_optimization import CiderOptimization, CiderReward
from captioner.training.distribution import Distribution
from captioner.training.optimizers import adamw
from captioner.training.row_batches import RowBatches
from captioner.training.training_run import Crossentropy, Step

POSITIONS, WIDTH, VOCABULARY = 81, 1280, 2900


def drawn_captions(number, random):
    """Five captions an image: lengths about as in Flickr8k, words by Zipf's law."""
    words = np.array([f"w{i}" for i in range(VOCABULARY)])
    chances = 1 / np.arange(1, VOCABULARY + 1)
    chances /= chances.sum()
    lengths = np.clip(random.normal(10.8, 3.7, (number, 5)).round(), 3, 30).astype(int)
    return [
        [" ".join(random.choice(words, n, p=chances)) for n in row] for row in lengths
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mixer", default="transformer")
    parser.add_argument("--fusion", default="attention")
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--hidden-dim", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    captions = drawn_captions(40 * arguments.batch_size, random)
    tokenizer = Tokenizer.from_captions(sum(captions, []), min_count=2)
    preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer, 20)
    features = random.normal(size=(arguments.batch_size, POSITIONS, WIDTH))
    features = features.astype(np.float16)
    batches = RowBatches(
        ("image_features", lambda indices: features[: len(indices)]),
        preprocessor.rows(captions),
        arguments.batch_size,
        seed=0,
    )
    plan = batches.epoch(0)
    real = batches.lengths[plan].sum() / sum(
        arguments.batch_size * batches.padded_length(batch) for batch in plan
    )
    results = {"real_tokens": round(float(real), 3)}
    print(f"real tokens: {real:.1%}\n\n| | first step | a step |\n|---|---|---|")
    reward = CiderReward(tokenizer, captions)
    for name, jit_compile in (
        ("crossentropy", False),
        ("crossentropy", True),
        ("cider", False),
        ("cider", True),
    ):
        keras.utils.set_random_seed(0)
        model = CaptionModel(
            tokenizer.vocabulary_size,
            (POSITIONS, WIDTH),
            mixer=arguments.mixer,
            fusion=arguments.fusion,
            num_layers=arguments.num_layers,
            hidden_dim=arguments.hidden_dim,
        )
        captioner = ImageCaptioner(model, preprocessor)
        stage = Crossentropy(1, None, 0.1)
        if name == "cider":
            stage = CiderOptimization(1, captioner, reward)
        stage.notes = {}
        captioner.compile(adamw(1e-4, 1000, clip_norm=5.0, ema_steps=100), stage.loss)
        model.optimizer.build(model.trainable_variables)
        step = Step(Distribution(), model, stage, 1, jit_compile)
        # One batch again and again: one shape.
        batch = next(iter(batches.dataset(0).map(stage.view)))
        seconds = []
        for _ in range(1 + arguments.steps):
            started = time.perf_counter()
            float(step(batch, 0)["loss"])
            seconds.append(time.perf_counter() - started)
        key = f"{name}, compiled" if jit_compile else name
        results[key] = statistics.median(seconds[1:])
        print(f"| {key} | {seconds[0]:.1f} s | {results[key]:.3f} s |", flush=True)
        if name == "cider":
            share = stage.notes["seconds"] / len(seconds) / results[key]
            results[f"{key}: reward's share"] = round(share, 4)
            print(f"| of which the reward | | {share:.2%} |", flush=True)
    print(json.dumps({**vars(arguments), **results}))


if __name__ == "__main__":
    main()

"""Where the time of a training step goes: compiled by XLA and not, with CIDEr.

    python benchmarks/train.py [--mixer transformer] [--fusion attention] [--steps 5]

The sizes are those of EfficientNet-Lite2's grid and Flickr8k; features are random and
captions drawn with Flickr8k's lengths, since speed does not depend on what they say.
Prints a table and one JSON line: seconds per step (the median), of which forward,
backward and optimizer; the matrix products of a step, and what share of the machine's
rate of them the step reaches, measured in the same run; how long the first step takes
(tracing and compiling); the share of real tokens; and the reward's share of the time.
"""

import argparse
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from captioner.images.image_converter import ImageConverter
from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tasks.train_step import differentiate
from captioner.tokenizers.tokenizer import Tokenizer
from captioner.training.cider_optimization import CiderOptimization, CiderReward
from captioner.training.crossentropy import Crossentropy
from captioner.training.distribution import Distribution
from captioner.training.optimizers import adamw
from captioner.training.row_batches import RowBatches
from captioner.training.step import Step

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


def seconds_of(function, number):
    """The median time of a call, after a first one that traces."""
    function()
    seconds = []
    for _ in range(number):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def product_rate(number, size=1024):
    """Floating-point operations per second of one large matrix product, float32."""
    matrix = tf.random.normal((size, size))
    product = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    return 2 * size**3 / seconds_of(lambda: product().numpy(), number)


def product_operations(model, rows, length):
    """Floating-point operations of the matrix products of one step: each kernel meets
    each position of the caption or of the image, and attention's products come on top.
    Backward takes twice as many as forward, but for the image features, of which no
    gradient is needed, as many."""
    image, text = 0, 0
    for weight in model.trainable_weights:
        if weight.name == "embeddings" or len(weight.shape) < 2:
            continue
        size = int(np.prod(weight.shape))
        if weight.shape[0] == WIDTH:
            image += 2 * POSITIONS * size
        else:
            text += 2 * length * size
    width = model.hidden_dim * model.num_layers
    if model.mixer == "transformer":
        text += 4 * length * length * width
    if model.fusion == "attention":
        text += 4 * length * POSITIONS * width
    return rows * (2 * image + 3 * text)


def parts_of_a_step(model, stage, batch, number):
    """Seconds of forward, and of forward and backward."""
    forward = tf.function(lambda: stage.objective(model, batch)[0])
    both = tf.function(lambda: differentiate(model, stage.objective, batch))
    return (
        seconds_of(lambda: forward().numpy(), number),
        seconds_of(lambda: both()[-1].numpy(), number),
    )


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
    print(f"real tokens: {real:.1%}\n\n| | first step | each step |\n|---|---|---|")
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
        if key == "crossentropy":
            shape = batch[0]["token_ids"].shape
            forward, both = parts_of_a_step(model, stage, batch, arguments.steps)
            rate = product_rate(arguments.steps)
            operations = product_operations(model, *shape)
            parts = {
                "forward": forward,
                "backward": both - forward,
                "optimizer": results[key] - both,
                "bare products": operations / rate,
                "share of the product rate": operations / rate / results[key],
            }
            results |= {f"crossentropy: {each}": parts[each] for each in parts}
            for part in ("forward", "backward", "optimizer"):
                print(f"| of which {part} | | {parts[part]:.3f} s |")
            print(
                f"| its products alone, {operations / 1e9:.1f} GFLOP at "
                f"{rate / 1e9:.0f} GFLOP/s | | {parts['bare products']:.3f} s, "
                f"{parts['share of the product rate']:.0%} of the step |",
                flush=True,
            )
        if name == "cider":
            share = stage.notes["seconds"] / len(seconds) / results[key]
            results[f"{key}: reward's share"] = round(share, 4)
            print(f"| of which the reward | | {share:.2%} |", flush=True)
    print(json.dumps({**vars(arguments), **results}))


if __name__ == "__main__":
    main()

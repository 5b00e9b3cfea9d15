"""How fast captions are written, against other ways to write the same ones.

    python benchmarks/decode.py                  # pip install captioner[bench]
    python benchmarks/decode.py --random transformer attention --batch-sizes 8

From image features to token ids, with the weights of a preset, or random ones of a
decoder of its size; the end token is made impossible, so that every caption has the
same length. In one run, in turn:

    captioner     `ImageCaptioner.generate_step`: greedy, 3 and 5 beams; some with XLA
    KerasHub      the same model driven by KerasHub's GreedySampler and BeamSampler
    tutorial      the loop of the Keras image-captioning example: one image at a time,
                  the whole model over the whole caption for each word
    model alone   `CaptionModel.step` in a loop, with nothing chosen
    products      the matrix products of greedy decoding alone, unrolled, in one graph

The captions of all of them must be the same, or the run fails. Prints a table and one
line of JSON: captions a second (the median of the repetitions), how many times as long
KerasHub takes for the same (the median of the repetitions' ratios: the ways take turns,
every other time in the opposite order, so that what else the machine does meets all
alike), the seconds that the first call takes longer (tracing and compiling), and by how
many MB a process grows at its peak, from the loaded model to its first captions.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import captioner  # noqa: E402
from captioner.captioning.caption import DEFAULT_PRESET  # noqa: E402
from captioner.decoders.fusion import AttentionFusion  # noqa: E402
from captioner.tokenizers.tokenizer import SPECIAL_TOKENS  # noqa: E402

SAMPLES = pathlib.Path(__file__).resolve().parent.parent / "data" / "samples"


class Bench:
    """The ways to decode, each a function of image features to token ids (B, L)."""

    def __init__(self, preset, length, random=None):
        self.preset, self.random = preset, random
        self.base = captioner.ImageCaptioner.from_preset(preset)
        if random:
            keras.utils.set_random_seed(0)
            config = self.base.caption_model.get_config()
            config["mixer"], config["fusion"] = random
            model = captioner.CaptionModel.from_config({**config, "num_heads": 8})
            self.base = captioner.ImageCaptioner(model, self.base.preprocessor)
        self.model = self.base.caption_model
        self.tokenizer = self.base.preprocessor.tokenizer
        self.length = length
        # What KerasHub's samplers cannot exclude, the end token too, is made
        # impossible in the weights, for all ways alike.
        bias = self.model.logits_dense.bias
        special = [*range(len(SPECIAL_TOKENS))]
        bias.assign(
            tf.tensor_scatter_nd_update(
                bias.value, [[i] for i in special], [-1e9] * len(special)
            )
        )

    def ways(self):
        """By their names, functions that make them."""
        return {
            "captioner greedy": lambda: self.captioner(1),
            "captioner 3 beams": lambda: self.captioner(3),
            "captioner 5 beams": lambda: self.captioner(5),
            "captioner greedy XLA": lambda: self.captioner(1, jit=True),
            "captioner 5 beams XLA": lambda: self.captioner(5, jit=True),
            "KerasHub greedy": lambda: self.keras_hub(1),
            "KerasHub 3 beams": lambda: self.keras_hub(3),
            "KerasHub 5 beams": lambda: self.keras_hub(5),
            "KerasHub greedy XLA": lambda: self.keras_hub(1, jit=True),
            "KerasHub 5 beams XLA": lambda: self.keras_hub(5, jit=True),
            "tutorial": lambda: self.tutorial,
            "model alone": self.model_alone,
            "products": self.products,
        }

    def features(self, batch_size):
        """Those of the sample photos, over and over, each with noise of its own."""
        photos = [captioner.load_image(path) for path in sorted(SAMPLES.glob("*.jpg"))]
        convert = self.base.preprocessor.image_converter
        features = self.model.encode(tf.stack([convert(photo) for photo in photos]))
        features = tf.gather(features, tf.range(batch_size) % len(photos))
        noise = np.random.default_rng(0).normal(1.0, 0.2, features.shape)
        return features * noise.astype("float32")

    def captioner(self, sampler, jit=False):
        constraints = captioner.Constraints(max_length=self.length)
        if sampler == 1:
            made = captioner.GreedySampler(constraints=constraints)
        else:
            made = captioner.BeamSampler(sampler, 0.0, constraints=constraints)
        task = captioner.ImageCaptioner.from_preset(self.base, made)
        step = tf.function(task.generate_step, jit_compile=jit, autograph=False)
        return lambda features: step(features).token_ids[:, 0].numpy()

    def keras_hub(self, num_beams, jit=False):
        import keras_hub  # here, so that the other ways' processes do without

        model, L = self.model, self.length
        if num_beams == 1:
            sampler = keras_hub.samplers.GreedySampler()
        else:
            sampler = keras_hub.samplers.BeamSampler(num_beams)

        @tf.function(jit_compile=jit, autograph=False)
        def decode(features):
            B = features.shape[0]
            image_cache = model.build_image_cache(features)
            if num_beams > 1:
                image_cache = keras.tree.map_structure(
                    lambda x: tf.repeat(x, num_beams, axis=0), image_cache
                )

            def next(prompt, cache, index):
                last = tf.gather(prompt, index - 1, axis=1)
                logits, cache = model.step(last, cache, image_cache, index - 1)
                return logits, None, cache

            start = self.tokenizer.start_id
            prompt = tf.pad(tf.fill([B, 1], start), [[0, 0], [0, L]])
            # Its beams are made from one row an image.
            cache = model.build_text_cache(B, L)
            mask = tf.concat([tf.ones((B, 1), tf.bool), tf.zeros((B, L), tf.bool)], 1)
            return sampler(next, prompt, cache=cache, index=1, mask=mask)[:, 1:]

        return lambda features: decode(features).numpy()

    def tutorial(self, features):
        """After keras.io/examples/vision/image_captioning, `generate_caption`."""
        captions = []
        for image in features:
            token_ids = np.zeros((1, self.length), "int32")
            token_ids[0, 0] = self.tokenizer.start_id
            caption = []
            for index in range(self.length):
                logits = self.model(
                    {"image_features": image[None], "token_ids": token_ids},
                    training=False,
                )
                caption.append(int(np.argmax(logits[0, index])))
                if index + 1 < self.length:
                    token_ids[0, index + 1] = caption[-1]
            captions.append(caption)
        return np.array(captions, "int32")

    def model_alone(self):
        model, L = self.model, self.length

        @tf.function(autograph=False)
        def decode(features):
            N = features.shape[0]
            image_cache = model.build_image_cache(features)

            def step(index, logits, cache):
                # No more than that each step needs the one before it.
                token_ids = tf.cast(logits[:, 0] > 1e9, tf.int32)
                return index + 1, *model.step(token_ids, cache, image_cache, index)

            _, logits, _ = tf.while_loop(
                lambda index, *_: index < L,
                step,
                (
                    tf.constant(0),
                    tf.zeros((N, model.vocabulary_size)),
                    model.build_text_cache(N, L),
                ),
            )
            return logits

        return lambda features: (decode(features).numpy(), None)[1]

    def products(self):
        blocks, logits_kernel = self.model.blocks, self.model.logits_dense.kernel
        D, L = self.model.hidden_dim, self.length

        @tf.function(autograph=False)
        def decode(features):
            B, P, E = features.shape
            x = tf.zeros((B, D))
            image = tf.reshape(features, (-1, E))
            for block in blocks:
                for dense in image_layers(block.fusion):
                    product = tf.reshape(image @ dense.kernel, (B, P, -1))
                    x += product[:, 0, :D] * 0.01
            for _ in range(L):  # each product needs the one before it
                for block in blocks:
                    for product in (mixer_products, fusion_products):
                        x = product(block, x, L, P)[:, :D] * 0.01
                x = (x @ logits_kernel)[:, :D] * 0.01
            return x

        return lambda features: (decode(features).numpy(), None)[1]


def image_layers(fusion):
    """The layers that a fusion lays over an image, once."""
    if isinstance(fusion, AttentionFusion):
        return fusion.attention.key_dense, fusion.attention.value_dense
    return (fusion.image_dense,)


def mixer_products(block, x, L, P):
    """The matrix products of one step of a mixer, (B, D) -> (B, D or more)."""
    mixer = block.mixer
    if block.mixer_name == "lstm":
        cell = mixer.lstm.cell
        return x @ cell.kernel + x @ cell.recurrent_kernel
    attention = mixer.attention
    for dense in (attention.key_dense, attention.value_dense):
        x = x @ dense.kernel * 0.01
    x = attention_products(attention, x, L) @ mixer.intermediate_dense.kernel
    return x @ mixer.output_dense.kernel


def fusion_products(block, x, L, P):
    """The same of a fusion."""
    fusion = block.fusion
    if isinstance(fusion, AttentionFusion):
        x = attention_products(fusion.attention, x, P)
    if block.fusion_name in ("concat", "weighted"):
        x = tf.concat([x, x], axis=1)
    if block.fusion_name == "weighted":
        x = x @ fusion.gate_dense.kernel
    return x @ fusion.output_dense.kernel


def attention_products(attention, x, S):
    """Those of a look at S places, of which each caption has its own."""
    heads, width = attention.num_heads, attention.head_dim
    kept = tf.zeros((x.shape[0], heads, S, width))
    queries = tf.reshape(x @ attention.query_dense.kernel, (-1, heads, 1, width))
    x = tf.matmul(queries, kept, transpose_b=True) @ kept
    return tf.reshape(x, (-1, heads * width)) @ attention.output_dense.kernel


def memory(name):
    """A line of /proc/self/status, in MB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024


def peak_of(bench, name, features):
    """By how many MB a new process grows, at its peak, from a loaded model to its first
    captions. A new one, since TensorFlow keeps the memory that it once had."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, features)
        file.flush()
        command = [sys.executable, __file__, "--preset", bench.preset]
        command += ["--length", str(bench.length), "--peak-of", name, file.name]
        command += ["--random", *bench.random] if bench.random else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def print_peak(bench, name, path):
    """The other side of `peak_of`."""
    way, features = bench.ways()[name](), tf.constant(np.load(path))
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the last peak
    before = memory("VmRSS")
    way(features)
    print(memory("VmHWM") - before)


def measure(bench, names, features, repetitions):
    """Runs ways of decoding in turn.

    Args:
        bench: `Bench`.
        names: those of some of its ways.
        features: (B, P, E); the tutorial's loop, which takes seconds for one image,
            is given one, and repeated once.

    Returns:
        dict of name -> dict of figures; dict of name -> token ids.
    """
    figures, found, ways = {}, {}, {name: bench.ways()[name]() for name in names}
    given = {name: features[:1] if name == "tutorial" else features for name in names}
    seconds = {name: [] for name in names}
    for name, way in ways.items():
        started = time.perf_counter()
        found[name] = way(given[name])
        figures[name] = {"first_seconds": time.perf_counter() - started}
    for repetition in range(repetitions):
        for name in names if repetition % 2 else names[::-1]:
            if name == "tutorial" and repetition:
                continue
            started = time.perf_counter()
            ways[name](given[name])
            seconds[name].append(time.perf_counter() - started)
    for name, each in figures.items():
        median = float(np.median(seconds[name]))
        each["seconds"] = median
        each["captions_per_second"] = len(given[name]) / median
        each["first_seconds"] = max(each["first_seconds"] - median, 0.0)
        each["peak_mb"] = peak_of(bench, name, given[name])
        theirs = name.replace("captioner", "KerasHub")
        if theirs != name and theirs in seconds:
            ratios = np.divide(seconds[theirs], seconds[name])
            each["keras_hub_times"] = float(np.median(ratios))
    return figures, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--random", nargs=2, metavar=("MIXER", "FUSION"))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--length", type=int, default=20, help="tokens of a caption")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    bench = Bench(arguments.preset, arguments.length, arguments.random)
    if arguments.peak_of:
        return print_peak(bench, *arguments.peak_of)

    records, different = [], []
    print(
        f"{'':24}{'captions/s':>12}{'x greedy':>10}{'first s':>9}{'peak MB':>9}"
        f"{'KerasHub':>10}"
    )

    def report(bench, batch_size, names):
        features = bench.features(batch_size)
        figures, found = measure(bench, names, features, arguments.repetitions)
        print(f"batch {batch_size}, {bench.length} tokens")
        greedy = figures["captioner greedy"]["captions_per_second"]
        for name, each in figures.items():
            ratio = each["captions_per_second"] / greedy
            times = each.get("keras_hub_times")
            print(
                f"  {name:22}{each['captions_per_second']:12.1f}{ratio:10.2f}"
                f"{each['first_seconds']:9.1f}{each['peak_mb']:9.0f}"
                + (f"{times:10.2f}" if times else "")
            )
            place = {"batch": batch_size, "tokens": bench.length, "way": name}
            records.append({**place, **each})
        sys.stdout.flush()
        for beams in ("greedy", "3 beams", "5 beams"):
            expected = found.get(f"captioner {beams}")
            for name in found:
                if beams in name or (beams, name) == ("greedy", "tutorial"):
                    if not np.array_equal(found[name], expected[: len(found[name])]):
                        different.append(f"{name}, batch {batch_size}")

    for batch_size in arguments.batch_sizes:
        report(bench, batch_size, [*bench.ways()])
    # Long captions and large batches.
    longer = Bench(arguments.preset, 80, arguments.random)
    report(longer, 8, ["captioner greedy", "captioner 5 beams"])
    report(bench, 512, ["captioner greedy", "captioner 5 beams"])

    print(f"captions that differ: {', '.join(different) or 'none'}")
    record = {
        "preset": arguments.preset,
        "random": arguments.random,
        "cpus": os.cpu_count(),
        "tensorflow": tf.__version__,
        "keras_hub": importlib.metadata.version("keras-hub"),
        "repetitions": arguments.repetitions,
        "different": different,
        "results": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in each.items()}
            for each in records
        ],
    }
    print(json.dumps(record))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()

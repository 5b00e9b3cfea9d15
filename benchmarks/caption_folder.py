"""How fast a folder is captioned, and where the time goes.

    python benchmarks/caption_folder.py                 # pip install captioner[bench]
    python benchmarks/caption_folder.py --engines       # and ai-edge-litert, tf2onnx,
                                                        # onnxruntime
    python benchmarks/caption_folder.py --hugging-face  # and torch, transformers
    python benchmarks/caption_folder.py --phone-photos
    python benchmarks/caption_folder.py --memory 1000 100000

The first captions copies of the sample photos with the shipped preset, end to end (CSV
and a text file each), and in turn the same number with the model alone, on tensors
that are ready; and times each stage by itself: reading and decoding in one process,
resizing, network, words, writing.

--engines compares ways to run the image network on the CPU. --hugging-face captions
the same photos with a `VisionEncoderDecoder` of the shape of vit-gpt2 and with
BLIP-base, their weights random (which is as fast), greedily, 12 words. --phone-photos
captions JPEGs of 12 megapixels, and in turn the same photos at 640 x 480, and gives the
peak memory of all processes. --memory gives that of a whole run over a number of small
photos, with a small captioner.

Each prints a table and one line of JSON. Wall times on a machine that does something
else are worth nothing; the processor's time (`cpu`) of one process is worth a little.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SAMPLES = pathlib.Path(__file__).resolve().parent.parent / "data" / "samples"
WORDS = 12


def copies(folder, count):
    """So many photos: the samples again and again."""
    samples = sorted(SAMPLES.glob("*.jpg"))
    for number in range(count):
        photo = samples[number % len(samples)]
        shutil.copy(photo, folder / f"{number:06}.jpg")
    return folder


def clocked(function):
    """(seconds, processor seconds of this process and those that it started and that
    have ended, result)."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    result = function()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu, result


# End to end, and by stage ----------------------------------------------------------


def end_to_end(count, rounds, batch_size):
    import tensorflow as tf

    import captioner
    from captioner.captioning.caption import DEFAULT_PRESET
    from captioner.captioning.engine import MOST_AT_ONCE, BatchCaptioner
    from captioner.captioning.engine_options import default_workers
    from captioner.images.decode_workers import DecodeWorkers
    from captioner.images.photo_sources import find_photos

    task = captioner.ImageCaptioner.from_preset(DEFAULT_PRESET)
    model = BatchCaptioner(task)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "photos").mkdir()
        photos = list(find_photos(copies(folder / "photos", count)))
        images = []
        with DecodeWorkers(1) as workers:
            workers.submit(photos[0]).result()
            decoding, _, decoded = clocked(
                lambda: [workers.submit(photo).result() for photo in photos]
            )
        resizing, _, images = clocked(
            lambda: [model.resize(each.pixels) for each in decoded]
        )
        batches = [images[i : i + batch_size] for i in range(0, count, batch_size)]
        model(batches[0])
        network, _, features = clocked(
            lambda: [model.task._network(tf.stack(batch)) for batch in batches]
        )
        words, _, _ = clocked(
            lambda: [task.generate_results(each, batch_size) for each in features]
        )

        def alone():  # with as many batches at once as the whole has
            at_once = concurrent.futures.ThreadPoolExecutor(
                max(2, min(default_workers(), MOST_AT_ONCE))
            )
            with at_once as pool:
                list(pool.map(model, batches))

        def whole(number):
            output = folder / f"{number}.csv"
            results = captioner.caption(
                folder / "photos",
                task,
                output,
                sidecars=True,
                sidecar_folder=folder / f"texts{number}",
                batch_size=batch_size,
                progress="none",
            )
            assert sum(result.error is None for result in results) == count

        def again():
            whole(0)

        alone()
        whole(0)
        writing, _, _ = clocked(again)  # nothing is new: what is left is the rest
        rates = {"model alone": [], "end to end": []}
        for number in range(1, rounds + 1):
            rates["model alone"].append(count / clocked(alone)[0])
            rates["end to end"].append(count / clocked(lambda: whole(number))[0])
    medians = {name: statistics.median(values) for name, values in rates.items()}
    stages = {
        "read and decode, one process": decoding,
        "resize": resizing,
        "image network": network,
        "words": words,
        "journal and outputs, nothing new": writing,
    }
    print(f"{count} photos, batches of {batch_size}, {rounds} rounds\n")
    print("| | photos/s |\n|---|---|")
    for name, rate in medians.items():
        print(f"| {name} | {rate:.2f} |")
    share = medians["end to end"] / medians["model alone"]
    print(f"\nend to end / model alone: {share:.0%}\n")
    print("| stage by itself | ms a photo |\n|---|---|")
    for name, seconds in stages.items():
        print(f"| {name} | {1000 * seconds / count:.2f} |")
    return {
        "photos_per_second": medians,
        "share": share,
        "stage_ms": {name: 1000 * s / count for name, s in stages.items()},
    }


# Engines ---------------------------------------------------------------------------


def engines(rounds, batch_sizes=(1, 8)):
    import numpy as np
    import onnxruntime
    import tensorflow as tf
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    import captioner
    from captioner.captioning.caption import DEFAULT_PRESET

    task = captioner.ImageCaptioner.from_preset(DEFAULT_PRESET)
    threads = len(os.sched_getaffinity(0))
    convert = task.preprocessor.image_converter
    photos = sorted(SAMPLES.glob("*.jpg"))[: max(batch_sizes)]
    images = np.stack([convert(captioner.load_image(photo)) for photo in photos])
    concrete = task._encode.get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete)
    signature = [tf.TensorSpec((None, *images.shape[1:]), tf.float32)]
    onnx, _ = tf2onnx.convert.from_function(task._encode, signature, opset=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx.SerializeToString(), options)
    (onnx_input,) = (each.name for each in session.get_inputs())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    lite = converter.convert()

    def litert():
        interpreter = Interpreter(model_content=lite, num_threads=threads)
        (given,) = interpreter.get_input_details()
        (made,) = interpreter.get_output_details()
        size = []

        def run(batch):
            if size != [len(batch)]:
                interpreter.resize_tensor_input(given["index"], batch.shape)
                interpreter.allocate_tensors()
                size[:] = [len(batch)]
            interpreter.set_tensor(given["index"], batch)
            interpreter.invoke()
            return interpreter.get_tensor(made["index"])

        return run

    xla = tf.function(task.caption_model.encode, jit_compile=True, autograph=False)
    ways = {
        "TF graph": lambda batch: task.encode(batch).numpy(),
        "TF graph, weights as constants": lambda batch: frozen(tf.constant(batch))[
            0
        ].numpy(),
        "XLA": lambda batch: xla(batch).numpy(),
        "LiteRT, XNNPACK": litert(),
        "ONNX Runtime": lambda batch: session.run(None, {onnx_input: batch})[0],
    }
    captions = [r.text for r in task.generate_results(task.encode(images).numpy())]
    table = {}
    for name, way in ways.items():
        found = [r.text for r in task.generate_results(np.asarray(way(images)))]
        table[name] = {"same captions": found == captions}
    for batch_size in batch_sizes:
        batch = images[:batch_size]
        clocks = {name: [] for name in ways}
        for way in ways.values():
            way(batch)
        for _ in range(rounds):
            for name, way in ways.items():
                clocks[name].append(clocked(lambda: way(batch))[:2])
        for name, times in clocks.items():
            wall, cpu = (statistics.median(t) / batch_size for t in zip(*times))
            table[name][f"photos/s, batch {batch_size}"] = round(1 / wall, 2)
            table[name][f"cpu ms a photo, batch {batch_size}"] = round(1000 * cpu, 1)
    show(table)
    return table


# Hugging Face ----------------------------------------------------------------------


def hugging_face(rounds, batch_sizes=(1, 4, 8)):
    import numpy as np
    import torch
    import transformers

    import captioner
    from captioner.captioning.caption import DEFAULT_PRESET
    from captioner.captioning.engine import MOST_AT_ONCE, BatchCaptioner
    from captioner.captioning.engine_options import default_workers

    torch.manual_seed(0)
    exactly = {"max_new_tokens": WORDS, "min_new_tokens": WORDS, "do_sample": False}
    vit_gpt2 = transformers.VisionEncoderDecoderModel(
        transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.ViTConfig(), transformers.GPT2Config()
        )
    ).eval()
    vit_gpt2.generation_config.decoder_start_token_id = 50256
    vit_gpt2.generation_config.pad_token_id = 50256
    blip = transformers.BlipForConditionalGeneration(transformers.BlipConfig()).eval()
    limits = captioner.Constraints(min_length=WORDS + 1, max_length=WORDS + 1)
    task = captioner.ImageCaptioner.from_preset(
        DEFAULT_PRESET, captioner.GreedySampler(constraints=limits)
    )
    model = BatchCaptioner(task)
    convert = task.preprocessor.image_converter
    photos = sorted(SAMPLES.glob("*.jpg"))
    images = [convert(captioner.load_image(p)) for p in photos[: max(batch_sizes)]]

    def of_torch(torch_model, side):
        pixels = torch.randn(max(batch_sizes), 3, side, side)

        def run(size):
            with torch.inference_mode():
                found = torch_model.generate(pixel_values=pixels[:size], **exactly)
            assert np.ptp([len(row) for row in found]) == 0

        return run

    # As many batches at once as a run has; torch uses all cores for one.
    at_once = max(2, min(default_workers(), MOST_AT_ONCE))
    pool = concurrent.futures.ThreadPoolExecutor(at_once)

    def ours(size):
        list(pool.map(model, [images[:size]] * at_once))

    ways = {
        "captioner": ours,
        "vit-gpt2": of_torch(vit_gpt2, 224),
        "BLIP-base": of_torch(blip, blip.config.vision_config.image_size),
    }
    rates = {name: {} for name in ways}
    for size in batch_sizes:
        clocks = {name: [] for name in ways}
        for name, way in ways.items():
            way(size)
        for _ in range(rounds):
            for name, way in ways.items():
                clocks[name].append(clocked(lambda: way(size))[0])
        for name, times in clocks.items():
            photos = size * (at_once if name == "captioner" else 1)
            rates[name][size] = photos / statistics.median(times)
    table = {}
    ours = max(rates["captioner"].values())
    for name, by_size in rates.items():
        best = max(by_size, key=by_size.get)
        table[name] = {
            "photos/s": round(by_size[best], 2),
            "batch": best,
            "captioner is so many times as fast": round(ours / by_size[best], 1),
        }
    show(table)
    return table


# Phone photos ----------------------------------------------------------------------


def phone_photos(count, rounds, batch_size):
    """12-megapixel JPEGs against the same photos at 640 x 480, in turn."""
    import captioner
    from captioner.captioning.caption import DEFAULT_PRESET

    task = captioner.ImageCaptioner.from_preset(DEFAULT_PRESET)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sizes = {"640 x 480": folder / "small", "4000 x 3000": folder / "large"}
        megabytes = _make_phone_photos(*sizes.values(), count)

        def run(name, number):
            output = folder / f"{number}-{sizes[name].name}.csv"
            results = captioner.caption(
                sizes[name], task, output, batch_size=batch_size, progress="none"
            )
            assert sum(result.error is None for result in results) == count

        rates, cpus, peaks = {}, {}, dict.fromkeys(sizes, 0)
        for name in sizes:
            rates[name], cpus[name] = [], []
        run("640 x 480", 0)
        for number in range(1, rounds + 1):
            for name in sizes:
                with _PeakMemory() as memory:
                    wall, cpu, _ = clocked(lambda: run(name, number))
                rates[name].append(count / wall)
                cpus[name].append(1000 * cpu / count)
                peaks[name] = max(peaks[name], memory.peak)
    table = {
        name: {
            "photos/s": round(statistics.median(rates[name]), 2),
            "cpu ms a photo": round(statistics.median(cpus[name]), 1),
            "peak MB, all processes": round(peaks[name] / 1e6),
        }
        for name in sizes
    }
    show(table)
    pairs = [large / small for small, large in zip(*rates.values())]
    ratio = statistics.median(pairs)
    print(
        f"\n{count} photos, {megabytes:.1f} MB each; ratio of the rates: {ratio:.2f}\n"
    )
    return {**table, "ratio": round(ratio, 3), "ratios": [round(r, 3) for r in pairs]}


def _make_phone_photos(small, large, count):
    """Two folders of the samples: as a phone takes photos, and reduced. Returns the
    mean size of the large files in megabytes."""
    import cv2
    import numpy as np

    small.mkdir()
    large.mkdir()
    random = np.random.default_rng(0)
    samples = sorted(SAMPLES.glob("*.jpg"))
    for number in range(count):
        files = [folder / f"{number:06}.jpg" for folder in (small, large)]
        if number >= len(samples):
            for file in files:
                os.link(file.with_stem(f"{number % len(samples):06}"), file)
            continue
        image = cv2.imread(str(samples[number]))
        image = cv2.resize(image, (4000, 3000), interpolation=cv2.INTER_CUBIC)
        # Noise as that of a small sensor; without it the files would be too small.
        noise = random.normal(0, 4, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        reduced = cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA)
        for file, pixels in zip(files, (reduced, image)):
            cv2.imwrite(str(file), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    sizes = [file.stat().st_size for file in large.iterdir()]
    return statistics.mean(sizes) / 1e6


def _command(process):
    return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()


class _PeakMemory(threading.Thread):
    """The most resident memory of this process and those below it, in bytes; what they
    share counts for each."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.ended = 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, sum(map(self._resident, self._processes())))

    def _processes(self):
        found = [os.getpid()]
        for process in found:
            for tasks in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
                try:
                    found += map(int, tasks.read_text().split())
                except OSError:  # it has just ended
                    pass
        return found

    @staticmethod
    def _resident(process):
        try:
            if process != os.getpid() and _command(process) == _command(os.getpid()):
                return 0  # it has just been forked, and all its memory is ours
            pages = pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.join()


# Memory ----------------------------------------------------------------------------


def memory(counts):
    """Each in a process of its own, whose peak is that of the run."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = [sys.executable, __file__, "--one-run", str(folder)]
        subprocess.run([*command, "0"], check=True)
        for count in counts:
            done = subprocess.run(
                [*command, str(count)], check=True, stdout=subprocess.PIPE, text=True
            )
            peaks[count] = json.loads(done.stdout.splitlines()[-1])
    show(peaks)
    return peaks


def one_run(folder, count):
    import resource

    import cv2
    import numpy as np

    import captioner

    preset = folder / "preset"
    if not count:
        tokenizer = captioner.Tokenizer.from_captions(["a dog runs on the grass"])
        backbone = captioner.VisionBackbone(
            "mobilenet", image_size=(32, 32), weights=None
        )
        model = captioner.CaptionModel(
            tokenizer.vocabulary_size, backbone.feature_shape, backbone, hidden_dim=8
        )
        converter = captioner.ImageConverter((32, 32))
        preprocessor = captioner.CaptionPreprocessor(converter, tokenizer, 4)
        captioner.ImageCaptioner(model, preprocessor, "greedy").save_to_preset(preset)
        return
    photos = folder / str(count)
    photos.mkdir()
    pixels = np.zeros((32, 32, 3), np.uint8)
    for number in range(count):
        pixels[:] = number % 251, number // 251 % 251, number % 7
        (photos / f"{number:07}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1])

    def run():
        results = captioner.caption(
            photos, preset, folder / f"{count}.csv", batch_size=64, progress="none"
        )
        assert sum(result.error is None for result in results) == count

    seconds = clocked(run)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    again = clocked(run)[0]
    print(
        json.dumps(
            {
                "peak MB": round(peak),
                "seconds": round(seconds, 1),
                "seconds again, nothing new": round(again, 1),
            }
        )
    )


def show(table):
    columns = list(next(iter(table.values())))
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(str(row[column]) for column in columns), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--hugging-face", action="store_true")
    parser.add_argument("--phone-photos", action="store_true")
    parser.add_argument("--memory", type=int, nargs="+", metavar="PHOTOS")
    parser.add_argument("--one-run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_run:
        one_run(pathlib.Path(given.one_run[0]), int(given.one_run[1]))
        return
    if given.engines:
        result = engines(given.rounds)
    elif given.hugging_face:
        result = hugging_face(given.rounds)
    elif given.phone_photos:
        result = phone_photos(given.photos, given.rounds, given.batch_size)
    elif given.memory:
        result = memory(given.memory)
    else:
        result = end_to_end(given.photos, given.rounds, given.batch_size)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

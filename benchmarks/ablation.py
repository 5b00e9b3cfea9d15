"""All eight pairs of mixer and fusion, on the same features, budget and seed.

    python benchmarks/ablation.py flickr8k:flickr8k ablation --epochs 8 --num-layers 2

trains each of them by `captioner train` with the flags given, and writes
ablation/table.md, table.json and plot.png: dev BLEU-4 and CIDEr, parameters of the
decoder, minutes of training, captions per second from image features. Run again, it
goes on where it was stopped; a pair that is finished is not trained again.
`--pairs lstm-additive,transformer-attention` takes some of them only.

Needs `pip install captioner[notebook]`, for the plot.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

import captioner

PAIRS = [
    f"{mixer}-{fusion}"
    for mixer in ("lstm", "transformer")
    for fusion in ("additive", "concat", "weighted", "attention")
]
BATCH_SIZE = 64  # captioned at a time, for the speed


def train(pair, dataset, output, flags):
    mixer, fusion = pair.split("-")
    run = output / pair
    command = [sys.executable, "-m", "captioner", "train", dataset, str(run)]
    command += ["--mixer", mixer, "--fusion", fusion]
    command += ["--cache-dir", str(output / "features"), *flags]
    if (run / "recipe.json").is_file():
        command.append("--resume")
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def measure(pair, output):
    """A row of the table."""
    run = output / pair
    history = json.loads((run / "history.json").read_text())["epochs"]
    best = max(history, key=lambda row: row["dev_cider"])
    model = captioner.ImageCaptioner.from_preset(run / "preset")
    decoder = model.caption_model
    shape = (BATCH_SIZE, *decoder.image_feature_shape)
    features = np.random.default_rng(0).random(shape, np.float32)
    model.generate(features, BATCH_SIZE)  # traces
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        model.generate(features, BATCH_SIZE)
        seconds.append(time.perf_counter() - started)
    backbone = decoder.vision_backbone.count_params()
    return {
        "pair": pair,
        "dev_bleu_4": best["dev_bleu_4"],
        "dev_cider": best["dev_cider"],
        "best_epoch": best["epoch"],
        "epochs": len(history),
        "decoder_parameters": decoder.count_params() - backbone,
        "training_minutes": sum(row["seconds"] for row in history) / 60,
        "captions_per_second": BATCH_SIZE / float(np.median(seconds)),
    }


def table(rows):
    lines = [
        "| mixer | fusion | BLEU-4 | CIDEr | best epoch | decoder | training "
        "| captions/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {' | '.join(row['pair'].split('-'))} | {row['dev_bleu_4']:.3f} "
            f"| {row['dev_cider']:.3f} | {row['best_epoch']} of {row['epochs']} "
            f"| {row['decoder_parameters'] / 1e6:.1f} M "
            f"| {row['training_minutes']:.0f} min | {row['captions_per_second']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for mixer, colour in (("lstm", "tab:blue"), ("transformer", "tab:orange")):
        mine = [row for row in rows if row["pair"].startswith(mixer)]
        bars = axes.barh(
            [row["pair"].replace("-", ", ") for row in mine],
            [row["dev_cider"] for row in mine],
            color=colour,
        )
        told = "{training_minutes:.1f} min, {captions_per_second:.0f} captions/s"
        axes.bar_label(bars, [told.format(**row) for row in mine], padding=4)
    axes.invert_yaxis()  # the first on top
    axes.margins(x=0.55)
    axes.set_xlabel("CIDEr on dev; beside it, how long training and decoding take")
    axes.set_title("Mixer and fusion")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--pairs", default=",".join(PAIRS))
    arguments, flags = parser.parse_known_args()
    pairs = arguments.pairs.split(",")
    if not set(pairs) <= set(PAIRS):
        parser.error(f"--pairs must be of {', '.join(PAIRS)}")
    rows = []
    for pair in pairs:
        train(pair, arguments.dataset, arguments.output, flags)
        rows.append(measure(pair, arguments.output))
        # After each, so that there is something to look at meanwhile.
        (arguments.output / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
        (arguments.output / "table.md").write_text(table(rows))
        plot(rows, arguments.output / "plot.png")
    print(table(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

"""`captioner train`."""

import click

from captioner.commands.dataset_flags import dataset_flags
from captioner.terminal import EXIT_CODES, import_tensorflow


@click.command("train", epilog=EXIT_CODES)
@click.argument("dataset")
@dataset_flags
@click.argument("output", type=click.Path())
@click.option("--backbone", default="efficientnet_lite2", show_default=True)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="imagenet, none, or the path of a .weights.h5 file.",
)
@click.option("--image-size", type=int, help="In pixels.  [default: the backbone's]")
@click.option(
    "--resize-mode",
    type=click.Choice(["squash", "crop", "pad"]),
    default="squash",
    show_default=True,
    help="For photos that are not square.",
)
@click.option(
    "--pooling", type=click.Choice(["avg"]), help="One vector an image, not a grid."
)
@click.option(
    "--mixer",
    type=click.Choice(["lstm", "transformer"]),
    default="lstm",
    show_default=True,
    help="What mixes along the caption.",
)
@click.option(
    "--fusion",
    type=click.Choice(["additive", "concat", "weighted", "attention"]),
    default="additive",
    show_default=True,
    help="What brings the image in.",
)
@click.option("--num-layers", type=int, default=2, show_default=True)
@click.option("--hidden-dim", type=int, default=512, show_default=True)
@click.option(
    "--intermediate-dim",
    type=int,
    help="How much to look for in the image, and width of a Transformer's feed-"
    "forward network.  [default: the hidden dim, and 4 times that]",
)
@click.option(
    "--num-heads",
    type=int,
    default=8,
    show_default=True,
    help="Of a Transformer and of attention fusion.",
)
@click.option("--dropout", type=float, default=0.4, show_default=True)
@click.option("--label-smoothing", type=float, default=0.1, show_default=True)
@click.option(
    "--min-count", type=int, default=4, show_default=True, help="Rarer words: unknown."
)
@click.option("--max-sequence-length", type=int, default=20, show_default=True)
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option(
    "--gradient-accumulation",
    type=int,
    default=1,
    show_default=True,
    help="Do each batch in so many parts: the same steps, less memory.",
)
@click.option("--epochs", type=int, default=15, show_default=True)
@click.option(
    "--patience",
    type=int,
    default=4,
    show_default=True,
    help="End after so many epochs without a better CIDEr.",
)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option(
    "--warmup-epochs",
    type=float,
    default=0.5,
    show_default=True,
    help="In which the learning rate rises; then it falls along a cosine.",
)
@click.option("--weight-decay", type=float, default=0.01, show_default=True)
@click.option(
    "--clip-norm",
    type=float,
    default=5.0,
    show_default=True,
    help="The longest that a gradient may be; 0: any.",
)
@click.option(
    "--ema-epochs",
    type=float,
    default=1.0,
    show_default=True,
    help="Epochs that the averaged weights look back; 0: no average.",
)
@click.option("--flips", is_flag=True, help="See half of the photos mirrored.")
@click.option(
    "--augmentations",
    type=int,
    default=0,
    show_default=True,
    help="See each photo in so many more views, each a little changed.",
)
@click.option(
    "--fine-tune-epochs",
    type=int,
    default=0,
    show_default=True,
    help="Then so many epochs in which the top of the backbone learns along.",
)
@click.option(
    "--fine-tune-layers",
    type=int,
    default=8,
    show_default=True,
    help="How many of its layers.",
)
@click.option("--fine-tune-learning-rate", type=float, default=1e-4, show_default=True)
@click.option(
    "--cider-epochs",
    type=int,
    default=0,
    show_default=True,
    help="Then so many epochs of learning from the CIDEr of its own captions.",
)
@click.option("--cider-learning-rate", type=float, default=5e-5, show_default=True)
@click.option(
    "--cider-samples",
    type=int,
    default=5,
    show_default=True,
    help="Captions of each photo.",
)
@click.option(
    "--cider-crossentropy",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of cross-entropy in the loss meanwhile.",
)
@click.option(
    "--mixed-precision",
    type=click.Choice(["bfloat16", "float16"]),
    help="Of the decoder.  [default: float32 throughout]",
)
@click.option("--jit-compile", is_flag=True, help="Let XLA compile the steps.")
@click.option(
    "--distribute",
    type=click.Choice(["mirrored", "multiworker", "tpu"]),
    help="All GPUs here; the machines in TF_CONFIG; a TPU.  [default: one device]",
)
@click.option(
    "--init-from",
    metavar="PRESET",
    help="Go on from a preset: its network, decoder and vocabulary count, and of what "
    "is said of them here only --image-size.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--checkpoint-minutes",
    type=float,
    default=10.0,
    show_default=True,
    help="How often the state is kept within an epoch.",
)
@click.option(
    "--cache-dir",
    type=click.Path(),
    help="Where backbone features are kept.  [default: OUTPUT/features]",
)
@click.option("--resume", is_flag=True, help="Go on with the run in OUTPUT.")
def train_command(dataset, output, weights, **options):
    """Train a captioner on DATASET; the best one is kept as OUTPUT/preset.

    DATASET needs a train and a dev split; `captioner datasets show` tells. A run that
    was stopped goes on with the same line and --resume.

    \b
    Examples:
      captioner train scenes run --image-size 128
      captioner train flickr8k:flickr8k run --backbone vgg16
      captioner train photos/captions.csv run
    """
    import_tensorflow()
    from captioner.training.train import train

    train(dataset, output, weights=None if weights == "none" else weights, **options)

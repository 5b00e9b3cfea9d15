"""`captioner datasets`."""

import click

from captioner.commands.dataset_flags import dataset_flags
from captioner.terminal import EXIT_CODES, printable, printable_lines


@click.group("datasets")
def datasets_group():
    """Show a dataset, or download one.

    Commands take a DATASET as a path, or as the name of a reader and a path:

    \b
    scenes                     drawn scenes, to try things out
    photos/captions.csv        a table (.csv, .tsv, .jsonl, .json) beside photos
    photos/                    photos with a .txt or .caption file beside each
    flickr8k:DIR               Flickr8k as its archives unpack
    coco:DIR, karpathy:FILE    COCO captions; the splits of Karpathy
    imagefolder:DIR            train/, validation/, test/ with a metadata.csv each
    parquet:DIR                Parquet files with photos in them, or their paths
    webdataset:DIR             tar archives of photos with .txt or .json
    label_studio:FILE          the JSON export of Label Studio
    tfds:NAME                  TensorFlow Datasets
    mix:SPEC*2+SPEC            several datasets; an epoch sees the first one twice

    Options can be added at the end: "FILE?image_dir=DIR&dev_fraction=0.1".
    """


@datasets_group.command("show", epilog=EXIT_CODES)
@click.argument("dataset")
@dataset_flags
def datasets_show(dataset):
    """Show the splits, images and captions of DATASET, and what was left out.

    Nothing is downloaded. `captioner datasets --help` lists the kinds of datasets.

    \b
    Examples:
      captioner datasets show scenes
      captioner datasets show flickr8k:flickr8k
      captioner datasets show karpathy:dataset_coco.json --image-dir coco
      captioner datasets show photos/captions.csv --dev-fraction 0.1
      captioner datasets show "mix:flickr8k:flickr8k+photos/captions.csv*3"
    """
    from captioner.datasets import load_dataset

    options = {"download": False} if "tfds:" in dataset else {}
    click.echo(printable_lines(load_dataset(dataset, **options).summary()))


@datasets_group.command("download", epilog=EXIT_CODES)
@click.argument("name")
@click.argument("output", type=click.Path())
@click.option("--base-url", help="Download the same archives from another address.")
def datasets_download(name, output, base_url):
    """Download the dataset NAME to the folder OUTPUT.

    NAME is flickr8k. A download that was interrupted continues where it stopped.

    \b
    Example:
      captioner datasets download flickr8k flickr8k
    """
    from captioner.datasets import download

    path = download(name, output, base_url)
    click.echo(printable(f"{name}:{path}"))

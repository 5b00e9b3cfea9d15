"""`captioner datasets`."""

import click


@click.group("datasets")
def datasets_group():
    """Look at a dataset, or download one."""


@datasets_group.command("show")
@click.argument("dataset")
def datasets_show(dataset):
    """What is in DATASET: splits, images, captions, and what was left out.

    \b
    Examples:
      captioner datasets show scenes
      captioner datasets show flickr8k:flickr8k
      captioner datasets show photos/captions.csv
    """
    from captioner.datasets import load_dataset

    click.echo(load_dataset(dataset).summary())


@datasets_group.command("download")
@click.argument("name")
@click.argument("output", type=click.Path())
@click.option("--base-url", help="Take the same archives from elsewhere.")
def datasets_download(name, output, base_url):
    """Download the dataset NAME into OUTPUT; stopped, it goes on where it was.

    \b
    Example:
      captioner datasets download flickr8k flickr8k
    """
    from captioner.datasets import download

    path = download(name, output, base_url)
    click.echo(f"{name}:{path}")

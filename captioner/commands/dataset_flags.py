"""The flags of all commands that take a dataset."""

import functools

import click


def dataset_flags(command):
    """Adds the flags to a command; they become part of its argument `dataset`."""

    @functools.wraps(command)
    def with_flags(*args, image_dir, dev_fraction, test_fraction, dataset, **kwargs):
        if dataset is not None:
            from captioner.datasets.spec import with_options

            dataset = with_options(dataset, image_dir, dev_fraction, test_fraction)
        return command(*args, dataset=dataset, **kwargs)

    for option in (
        click.option(
            "--test-fraction",
            type=float,
            help="Share of the images for test, if DATASET has no splits.  "
            "[default: 0.05]",
        ),
        click.option(
            "--dev-fraction",
            type=float,
            help="Share of the images for dev, if DATASET has no dev split.  "
            "[default: 0.05 if it has no splits at all]",
        ),
        click.option(
            "--image-dir",
            type=click.Path(file_okay=False),
            help="Folder of the photos, if they are not beside the captions.",
        ),
    ):
        with_flags = option(with_flags)
    return with_flags

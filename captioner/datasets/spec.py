"""Options at the end of a dataset spec: `ann.json?image_dir=photos&dev_fraction=0.1`.

They are a part of the spec, so that whatever keeps a spec, such as the recipe of a
training, keeps them too, and so that the parts of a mix can have options of their own.
"""

import re
import urllib.parse

from captioner.datasets.dataset_builder import SPLIT_FRACTIONS

# A quotation mark ends a part of a mix, so in a value it is written as %27 or %22.
_OPTION = r"""(?:image_dir|dev_fraction|test_fraction)=[^&?'"]*"""
# A file name may contain a question mark; only this after it makes options of it.
_OPTIONS = re.compile(rf"\?({_OPTION}(?:&{_OPTION})*)\Z")


def with_options(spec, image_dir=None, dev_fraction=None, test_fraction=None):
    """Adds options to a spec.

    Args:
        spec: str, what `load_dataset` takes.
        image_dir: str or None. The folder of the photos.
        dev_fraction, test_fraction: float or None. The shares of the images that
            become the dev and the test split, where the dataset has none.

    Returns:
        str, the spec with the options that are not None.

    >>> with_options("ann.json", image_dir="my photos", dev_fraction=0.1)
    'ann.json?image_dir=my%20photos&dev_fraction=0.1'
    """
    options = {
        "image_dir": image_dir,
        "dev_fraction": dev_fraction,
        "test_fraction": test_fraction,
    }
    text = "&".join(
        f"{name}={urllib.parse.quote(str(value), safe='/')}"
        for name, value in options.items()
        if value is not None
    )
    return f"{spec}?{text}" if text else spec


def split_options(spec):
    """Splits a spec from the options at its end.

    Returns:
        `(spec, options)`: the options are as `load_dataset` takes them, `image_dir`
        and `split_fractions`.

    Raises:
        ValueError: If a fraction is no number from 0 to 1.

    >>> split_options("ann.json?image_dir=my%20photos&dev_fraction=0.1")
    ('ann.json', {'image_dir': 'my photos', 'split_fractions': (0.85, 0.1, 0.05)})
    """
    match = _OPTIONS.search(spec)
    if match is None:
        return spec, {}
    given = dict(each.split("=", 1) for each in match.group(1).split("&"))
    options = {}
    if "image_dir" in given:
        options["image_dir"] = urllib.parse.unquote(given.pop("image_dir"))
    if given:
        _, dev, test = SPLIT_FRACTIONS
        dev = _fraction(given.get("dev_fraction", dev), spec)
        test = _fraction(given.get("test_fraction", test), spec)
        if dev + test >= 1:
            raise ValueError(
                "The dev and the test fraction leave no images to train on. "
                f"Received: {dev} and {test} in {spec!r}"
            )
        options["split_fractions"] = (round(1 - dev - test, 9), dev, test)
    return spec[: match.start()], options


def _fraction(value, spec):
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise ValueError(
            f"A fraction must be a number from 0 to 1. Received: {value} in {spec!r}"
        )
    return number

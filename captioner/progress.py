"""How far long work has come: a bar on a terminal, plain lines elsewhere."""

import sys

from tqdm import tqdm

LINE_INTERVAL = 30  # seconds between two lines


def progress_bar(desc, total, initial=0, unit="photo"):
    """A `tqdm` bar with rate and remaining time, on standard error.

    Where standard error is no terminal, as in a log file, it writes a whole line
    now and then instead of redrawing one.

    Example:

    >>> with progress_bar("features", total=3) as bar:
    ...     bar.update(3)
    """
    if sys.stderr.isatty():
        return tqdm(desc=desc, total=total, initial=initial, unit=unit)
    return tqdm(
        desc=desc,
        total=total,
        initial=initial,
        unit=unit,
        file=_Lines(),
        mininterval=LINE_INTERVAL,
        maxinterval=LINE_INTERVAL,
        delay=LINE_INTERVAL,  # short work says nothing
        bar_format="{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left",
    )


class _Lines:
    """A file for tqdm that ends each state with a line break."""

    def write(self, text):
        text = text.strip("\r\n ")
        if text:
            sys.stderr.write(text + "\n")

    def flush(self):
        sys.stderr.flush()

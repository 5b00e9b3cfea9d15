"""The progress of long work: a bar on a terminal, plain lines elsewhere."""

import json
import time

from tqdm import tqdm

from captioner.terminal import is_terminal, printable, say

LINE_INTERVAL = 30  # seconds between two lines
PROGRESS_MODES = ("auto", "json", "none")


def progress_bar(desc, total, initial=0, unit="photo"):
    """A `tqdm` bar with rate and remaining time, on standard error.

    Where standard error is not a terminal, as in a log file, it writes a whole line
    now and then instead of redrawing one.

    Example:

    >>> with progress_bar("features", total=3) as bar:
    ...     bar.update(3)
    """
    if is_terminal():
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
            say(text)

    def flush(self):
        pass  # each line is written at once


class RunProgress:
    """The progress of a run over photos: rate, time left, failures.

    Args:
        mode: "auto" (a bar on a terminal, plain lines elsewhere), "json" (one object
            per line on standard error) or "none".
        total: how many photos there are, or None; it may be set later.

    Example:

    >>> with RunProgress("auto", 3) as progress:
    ...     progress.update(done=2, failed=1)
    """

    def __init__(self, mode="auto", total=None):
        if mode not in PROGRESS_MODES:
            raise ValueError(
                f"progress must be one of {', '.join(PROGRESS_MODES)}. "
                f"Received: progress={mode}"
            )
        self.total = total
        self.done = self.failed = self.known = 0
        self.left_aside = {}  # suffix to number of files, told at the end
        self._mode, self._bar = mode, None
        if mode == "auto" and is_terminal():
            self._bar = tqdm(
                desc="captions",
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix}",
                leave=False,
            )
        self._told = time.monotonic()
        # The rate is counted from the first results on: what comes before them (the
        # model is loaded) comes once.
        self._first, self._first_seen = None, 0

    def update(self, done=0, failed=0, known=0):
        """Count more photos that are captioned, have failed, or were known already."""
        self.done += done
        self.failed += failed
        self.known += known
        if self._mode == "none" or not self.done + self.failed + self.known:
            return
        now = time.monotonic()
        if self._first is None and done + failed:
            self._first, self._first_seen = now, self.done + self.failed
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.n = self.done + self.failed + self.known
            self._bar.set_postfix_str(self._line(), refresh=False)
            self._bar.update(0)
            if now - self._told > 0.1:
                self._told = now
                self._bar.refresh()
        elif now - self._told >= (2 if self._mode == "json" else LINE_INTERVAL):
            self._told = now
            if self._mode == "json":
                say(json.dumps({"event": "progress", **self.state()}))
            else:
                say(f"captions: {self._line()}")

    def note(self, text):
        """Say something that the user should know."""
        if self._mode == "json":
            say(json.dumps({"event": "note", "text": text}))
        elif self._mode == "auto":
            say(f"note: {printable(text)}")

    def state(self):
        """dict of done, failed, known, total, rate (photos per second) and
        remaining_seconds; what is not known is None."""
        seen = self.done + self.failed
        seconds = 0 if self._first is None else time.monotonic() - self._first
        counted = seen - self._first_seen
        rate = counted / seconds if counted and seconds > 0 else None
        left = None
        if rate and self.total is not None:
            left = max(0, self.total - seen - self.known) / rate
        return {
            "done": self.done,
            "failed": self.failed,
            "known": self.known,
            "total": self.total,
            "rate": rate and round(rate, 2),
            "remaining_seconds": None if left is None else round(left),
        }

    def _line(self):
        state = self.state()
        count = f"{self.done + self.failed + self.known:,}"
        parts = [count if self.total is None else f"{count} of {self.total:,}"]
        if state["rate"]:
            parts.append(f"{state['rate']:.1f} photos/s")
        if state["remaining_seconds"] is not None:
            parts.append(f"{tqdm.format_interval(state['remaining_seconds'])} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return ", ".join(parts)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()
        if self.left_aside and self._mode == "json":
            say(json.dumps({"event": "left_aside", "files": self.left_aside}))
        elif self.left_aside and self._mode == "auto":
            files = [f"{number:,} {key}" for key, number in self.left_aside.items()]
            say(f"left aside: {', '.join(files)}")

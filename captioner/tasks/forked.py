"""TensorFlow hangs in a process that was forked after it was used: say so instead."""

import os

_used = _forked = False


def note_use():
    """TensorFlow is used from here on."""
    global _used
    _used = True


def refuse_if_forked():
    """Raise where the next operation of TensorFlow would hang.

    Raises:
        RuntimeError: this process was forked from one that had used TensorFlow.
    """
    if _forked:
        raise RuntimeError(
            "TensorFlow hangs in a process that was forked after a captioner was made; "
            'use multiprocessing.get_context("spawn"), or make the captioner in the '
            "new process."
        )


def _after_fork():
    global _forked
    _forked = _used


os.register_at_fork(after_in_child=_after_fork)

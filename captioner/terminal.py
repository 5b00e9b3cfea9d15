"""What all commands share: exit codes, Ctrl-C, one clear line for a mistake."""

import contextlib
import logging
import os
import resource
import signal
import sys
import threading

# Bytes, most of which it reserves and does not use.
TENSORFLOW_ADDRESS_SPACE = 4_000_000 * 1024

EXIT_CODES = """
\b
Exit codes:
  0    all went well
  1    some photos could not be captioned; the others were
  2    nothing was done, or not all: one line says why
  130  interrupted
"""


@contextlib.contextmanager
def ctrl_c(at_once=True):
    """Make sure of Ctrl-C: TensorFlow may lose a `KeyboardInterrupt` that is raised
    inside it, or turn it into an error of its own.

    Yields a list, true once Ctrl-C was pressed. Without `at_once` the first one
    raises nothing, and whoever asked for the list stops where it is good to stop.
    """
    pressed = []

    def handler(*_):
        pressed.append(True)
        if at_once or len(pressed) > 1:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    # Another thread never gets it, and behind nohup it is ignored.
    mine = threading.current_thread() is threading.main_thread()
    mine = mine and before is not signal.SIG_IGN
    if mine:
        signal.signal(signal.SIGINT, handler)
    try:
        yield pressed
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


def one_line(error):
    """The message of an error that is a user's mistake, on one line."""
    if isinstance(error, OSError) and error.strerror:  # without its "[Errno 28]"
        named = [] if error.filename is None else [str(error.filename)]
        return printable(": ".join([*named, error.strerror]))
    return " ".join(str(error).split())


def printable(path):
    """A path on one line, whatever its name holds."""
    return path if path.isprintable() else repr(path)


def import_tensorflow():
    """Import TensorFlow without the notes that its C++ writes about GPUs."""
    if "tensorflow" in sys.modules:
        return
    _check_memory_limit()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with muted_stderr():
        import tensorflow  # noqa: F401


def _check_memory_limit():
    """Refuse a limit under which TensorFlow would end the process without a word."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < TENSORFLOW_ADDRESS_SPACE:
        raise ValueError(
            f"The limit of memory, `ulimit -v {limit // 1024}`, is too low: TensorFlow "
            f"needs {TENSORFLOW_ADDRESS_SPACE // 1024}."
        )


@contextlib.contextmanager
def muted_stderr():
    """What anybody writes to standard error is lost, native libraries too; and warnings
    in logs, which a notebook shows by other ways."""
    with _muting:
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        sys.stderr.flush()
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
            sys.stderr.flush()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
            logging.disable(disabled)


_muting = threading.Lock()

"""What all commands share: exit codes, Ctrl-C, what is written to the terminal."""

import contextlib
import logging
import os
import resource
import signal
import sys
import threading
import unicodedata

# Bytes, most of which it reserves and does not use.
TENSORFLOW_ADDRESS_SPACE = 4_000_000 * 1024

EXIT_CODES = """
\b
Exit codes:
  0    success
  1    some photos could not be captioned; all others were
  2    the command failed or stopped early: one line says why
  130  interrupted
"""


@contextlib.contextmanager
def ctrl_c(at_once=True):
    """Handle Ctrl-C reliably: TensorFlow may lose a `KeyboardInterrupt` that is raised
    inside it, or turn it into an error of its own.

    Yields a list that is empty until Ctrl-C is pressed. Without `at_once` the first
    Ctrl-C raises nothing: the caller looks at the list and stops at a good place.
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
    return printable(" ".join(str(error).split()))


def printable(text):
    r"""Text of others (a file name, a caption, a server's answer) for the terminal.

    It stays on one line and cannot steer the terminal: control characters, those that
    reverse the direction of writing, and bytes that are no text become escapes.

    Example:

    >>> printable("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(
        (
            each
            # Joiners belong to the writing of many languages, and to emoji.
            if each.isprintable() or each in "\u200c\u200d" or _is_space(each)
            else each.encode("unicode_escape").decode("ascii")
        )
        for each in text
    )


def printable_lines(text):
    """As `printable`, for a text of several lines, such as a table."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def _is_space(character):
    return unicodedata.category(character) == "Zs"


def say(text):
    """Write to standard error, what others wrote made `printable`. Nobody may read it
    any more, as behind a closed pipe, and that is no reason to stop the work."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(printable_lines(text), file=sys.stderr, flush=True)


def is_terminal():
    """Whether somebody sees standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def open_standard_streams():
    """Open the standard streams that were closed, as by `2>&-`, to nowhere. Else the
    next file that is opened would get what is written to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def import_tensorflow():
    """Import TensorFlow without the notes about GPUs that it writes."""
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
    """Discard what is written to standard error, by native libraries too, and logged
    warnings, which a notebook shows in other ways."""
    with _muting:
        try:
            kept = os.dup(2)
        except OSError:  # closed, so there is nothing to mute
            yield
            return
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        _flush_stderr()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
            _flush_stderr()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
            logging.disable(disabled)


_muting = threading.Lock()


def _flush_stderr():
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

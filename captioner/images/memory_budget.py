"""How much memory the pictures of a run take at a time."""

import contextlib
import threading


class MemoryBudget:
    """Bytes that several threads share; who wants more than are left waits.

    Those who wait get theirs in the order in which they came, so that a large picture
    has its turn. One that wants more than there are at all is alone.

    Args:
        total: how many bytes there are.

    Example:

    >>> budget = MemoryBudget(2**30)
    >>> with budget.hold(3 * 4000 * 3000):
    ...     pass  # decode the picture
    """

    def __init__(self, total):
        self.total = total
        self.held = 0
        self._waiting = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, count):
        """Wait until `count` bytes are free, and give them back at the end."""
        count = min(count, self.total)
        me = object()
        with self._changed:
            self._waiting.append(me)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is me and self.held + count <= self.total
                )
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()
            self.held += count
        try:
            yield
        finally:
            with self._changed:
                self.held -= count
                self._changed.notify_all()

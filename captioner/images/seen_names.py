"""Names that were seen already, of however many there are."""

import hashlib
import os
import sqlite3


class SeenNames:
    """Names that were seen, in a temporary file once they are many.

    Example:

    >>> seen = SeenNames()
    >>> seen.add("a.jpg"), seen.add("a.jpg")
    (True, False)
    """

    def __init__(self):
        # The empty name: a database that lives in memory until it grows, and that
        # nobody else can see.
        self.database = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )
        self.database.execute("PRAGMA journal_mode=OFF")
        self.database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, times INT)")
        self.database.execute("BEGIN")

    def add(self, name):
        """Adds a name, and returns whether it is new."""
        return self.count(name) == 1

    def count(self, name):
        """Adds a name, and returns how many times it has been added."""
        digest = hashlib.blake2b(os.fsencode(name), digest_size=16).digest()
        ((times,),) = self.database.execute(
            "INSERT INTO seen VALUES (?, 1) "
            "ON CONFLICT (digest) DO UPDATE SET times = times + 1 RETURNING times",
            (digest,),
        ).fetchall()
        return times

    def close(self):
        self.database.close()

"""What a run over a folder has done: an SQLite file that survives being killed.

A batch of photos is one transaction, on the disk before any caption file is written.
After a crash the journal knows every finished photo, and which caption files may not be
there yet; so the same command goes on, and its outputs are made from the journal.
"""

import contextlib
import json
import os
import pathlib
import secrets
import sqlite3
import typing

JOURNAL_FILE = "journal.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS photos (
    name BLOB PRIMARY KEY,
    stamp TEXT,
    digest BLOB,
    captions TEXT,
    kind TEXT,
    reason TEXT,
    before TEXT,
    written INTEGER,
    run INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thumbnails (name BLOB PRIMARY KEY, jpeg BLOB);
CREATE TABLE IF NOT EXISTS listing (
    position INTEGER PRIMARY KEY, name BLOB, relative BLOB
);
"""


class Entry(typing.NamedTuple):
    """One photo in the journal.

    Attributes:
        name: str, of the photo.
        stamp: str, as of the `Photo` that was captioned.
        digest: bytes, of its content, or None.
        captions: list of [text, score], the best first; or None.
        kind, reason: str, of its error, or None. The kind "kept" has a caption.
        before: dict of caption file kind to the text that it had before, or None.
        written: whether its caption files are known to be written.
        run: int, the run that made the entry; see `CaptionJournal.run`.
    """

    name: str
    stamp: str
    digest: bytes | None = None
    captions: list | None = None
    kind: str | None = None
    reason: str | None = None
    before: dict | None = None
    written: bool = True
    run: int = 0


class CaptionJournal:
    """The journal in a run folder. One process at a time has it.

    Args:
        folder: the run folder; it is made. None for one that is gone at the end.

    Attributes:
        run: int, how often a run was begun anew; one that goes on keeps the number.
        token: str, a random name for unfinished files, the same in all runs.

    Raises:
        ValueError: the folder holds another run that is at work, or a damaged journal.
    """

    def __init__(self, folder):
        self.folder, path = folder and pathlib.Path(folder), ""
        if folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / JOURNAL_FILE
        self._database = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            execute = self._database.execute
            execute("PRAGMA locking_mode=EXCLUSIVE")
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=FULL")  # also after a power cut
            execute("BEGIN EXCLUSIVE")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                execute(statement)
            self.token = self.fact("token")
            if self.token is None:
                self.token = secrets.token_hex(8)
                self.set_fact("token", self.token)
            execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._database.close()
            if "locked" in str(error):
                raise ValueError(f"{folder}: another run is at work here") from error
            raise OSError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(f"{path}: damaged ({error})") from error

    def fact(self, name, default=None):
        """A value that was set, or `default`."""
        found = self._database.execute(
            "SELECT value FROM facts WHERE name = ?", (name,)
        ).fetchone()
        return default if found is None else json.loads(found[0])

    def set_fact(self, name, value):
        """Keep a value that JSON can say."""
        self._database.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value))
        )

    def begin(self):
        """Begin a run, or go on with one that was not finished."""
        with self.transaction():
            self.run = self.fact("run", 0)
            if self.fact("finished", True):
                self.run += 1
                self.set_fact("run", self.run)
                self.set_fact("finished", False)
            self._database.execute("DELETE FROM listing")

    def forget(self):
        """Begin as if nothing had been done."""
        with self.transaction():
            for table in ("photos", "thumbnails", "listing"):
                self._database.execute(f"DELETE FROM {table}")
            self.set_fact("finished", True)

    @contextlib.contextmanager
    def transaction(self):
        """What happens within is kept wholly or not at all."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def find(self, name):
        """The `Entry` of a photo, or None."""
        row = self._database.execute(
            "SELECT * FROM photos WHERE name = ?", (os.fsencode(name),)
        ).fetchone()
        return None if row is None else _entry(row)

    def is_empty(self):
        """Whether no photo is in it."""
        return self._database.execute("SELECT 1 FROM photos").fetchone() is None

    def add(self, entries):
        """Keep entries, in place of those of the same photos."""
        self._database.executemany(
            "INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    os.fsencode(entry.name),
                    entry.stamp,
                    entry.digest,
                    _dump(entry.captions),
                    entry.kind,
                    _dump(entry.reason),
                    _dump(entry.before),
                    entry.written,
                    entry.run,
                )
                for entry in entries
            ],
        )

    def mark_written(self, names):
        """The caption files of these photos are there."""
        self._database.executemany(
            "UPDATE photos SET written = 1 WHERE name = ?",
            [(os.fsencode(name),) for name in names],
        )

    def add_thumbnails(self, thumbnails):
        """Keep pairs of a photo's name and its small JPEG."""
        self._database.executemany(
            "INSERT OR REPLACE INTO thumbnails VALUES (?, ?)",
            [(os.fsencode(name), jpeg) for name, jpeg in thumbnails],
        )

    def has_thumbnail(self, name):
        """Whether there is a small JPEG of a photo."""
        return (
            self._database.execute(
                "SELECT 1 FROM thumbnails WHERE name = ?", (os.fsencode(name),)
            ).fetchone()
            is not None
        )

    def thumbnail(self, name):
        """The small JPEG of a photo, or None."""
        found = self._database.execute(
            "SELECT jpeg FROM thumbnails WHERE name = ?", (os.fsencode(name),)
        ).fetchone()
        return None if found is None else found[0]

    def list(self, places):
        """Say what photos there are: (position, `Photo`) of each."""
        self._database.executemany(
            "INSERT OR REPLACE INTO listing VALUES (?, ?, ?)",
            [
                (position, os.fsencode(photo.name), os.fsencode(photo.relative))
                for position, photo in places
            ],
        )

    def listed(self):
        """All photos that there are, in order: (position, relative path, `Entry`)."""
        rows = self._database.execute(
            "SELECT position, relative, photos.* FROM listing JOIN photos USING (name) "
            "ORDER BY position"
        )
        for position, relative, *row in rows:
            yield position, os.fsdecode(relative), _entry(row)

    def not_listed(self):
        """The names of photos that are known and not among those that there are."""
        rows = self._database.execute(
            "SELECT name FROM photos WHERE name NOT IN (SELECT name FROM listing) "
            "ORDER BY name"
        )
        return (os.fsdecode(name) for (name,) in rows)

    def close(self):
        self._database.close()


def _dump(value):
    return None if value is None else json.dumps(value)


def _entry(row):
    name, stamp, digest, captions, kind, reason, before, written, run = row
    return Entry(
        os.fsdecode(name),
        stamp,
        digest,
        captions and json.loads(captions),
        kind,
        reason and json.loads(reason),
        before and json.loads(before),
        bool(written),
        run,
    )

"""What a run over photos has done: an SQLite file that survives being killed.

A batch of photos is one transaction, which is on the disk before any file of a photo is
written. After a crash the journal knows every finished photo, and whose files may not
be there yet. So the same command continues, and its outputs are made from the journal.
What a run makes of a photo (its payload) is any value that JSON has a form for.

A journal decides what is written to the disk, and it lies where photos lie, so it may
arrive together with them. It is therefore trusted only if this user has made it: each
row carries a code (a keyed BLAKE2 hash) made with a secret key of the user, which lies
outside, in `$XDG_STATE_HOME/captioner`. The same codes tell a damaged row.
"""

import contextlib
import errno
import hashlib
import hmac
import json
import os
import pathlib
import secrets
import sqlite3
import stat
import typing

from captioner.files import atomic_write, file_sha256

JOURNAL_FILE = "journal.sqlite"
KEY_FILE = "journal.key"
KEY_BYTES = 32
APPLICATION_ID = 0x43415054  # "CAPT", in the header of the file
SCHEMA_VERSION = 2  # of 0.1.0, which wrote none, 1
_SCHEMA = {
    "state": "CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT, code BLOB)",
    "photos": "CREATE TABLE photos (name BLOB PRIMARY KEY, stamp TEXT, digest BLOB, "
    "payload TEXT, kind TEXT, reason TEXT, written INTEGER, run INTEGER, code BLOB) "
    "WITHOUT ROWID",
    "thumbnails": "CREATE TABLE thumbnails (name BLOB PRIMARY KEY, jpeg BLOB, "
    "code BLOB)",
    "listing": "CREATE TABLE listing (position INTEGER PRIMARY KEY, name BLOB, "
    "relative BLOB)",
}
_SUFFIXES = ("", "-wal", "-shm", "-journal")  # of the files that SQLite keeps
# https://www.sqlite.org/fileformat2.html#the_rollback_journal
_ROLLBACK_MARK = bytes.fromhex("d9d505f920a163d7")
# The types of their columns, which SQLite does not enforce.
_MAYBE_TEXT = str | None
_TYPES = {
    "state": (str, str),
    "photos": (bytes, str, bytes | None, *[_MAYBE_TEXT] * 3, int, int),
    "thumbnails": (bytes, bytes),
}


class Entry(typing.NamedTuple):
    """What the journal knows of one photo.

    Attributes:
        name: str, of the photo.
        stamp: str, as of the `Photo` that was looked at.
        digest: bytes, of its content, or None.
        payload: what was made of the photo, any JSON value, or None; where the photo
            failed later, it is still that of before.
        kind: str, the kind of its error, or None; "kept" where the payload was not made
            but found.
        reason: str, the reason of its error, or None.
        written: whether the photo's own files are known to be written.
        run: int, the run that made the entry; see `Journal.run`.
    """

    name: str
    stamp: str
    digest: bytes | None = None
    payload: typing.Any = None
    kind: str | None = None
    reason: str | None = None
    written: bool = True
    run: int = 0

    @property
    def failed(self):
        """Whether the entry is an error."""
        return self.kind not in (None, "kept")


class Journal:
    """The journal in a run folder. One process at a time has it.

    Args:
        folder: the run folder; it is made. None for a journal in memory.
        trusted: use a journal that this user has not made, or whose key is lost, and
            make it this user's. So are journals of captioner 0.1.0.
        read_only: change nothing, as on a disk that cannot be written.

    Attributes:
        run: int, how often a run was begun anew; one that continues keeps the number.
        token: str, a random name for the unfinished files of this process.
        old_tokens: list of str, those of processes that may have been killed.
        is_new: whether the folder had no journal before.
        note: str, what the user should know, or None.

    Raises:
        ValueError: the folder or the journal is a symbolic link, another run is using
            the journal, or it is damaged, of another version or not of this user.
        OSError: the folder cannot be written.

    Example:

    ```python
    with contextlib.closing(Journal("captions.csv.run")) as journal:
        journal.begin({"preset": "tiny"})
        with journal.transaction():
            journal.add([Entry("a.jpg", "1:2", payload={"captions": ["a dog"]})])
    ```
    """

    def __init__(self, folder, trusted=False, read_only=False):
        self.folder = folder and pathlib.Path(folder)
        self.path = self.folder / JOURNAL_FILE if folder else pathlib.Path("journal")
        self.token, self.old_tokens = secrets.token_hex(8), []
        self.note, self.is_new, self._made_folder = None, False, False
        self.run = 0
        # An empty name is a file of SQLite's own, which is gone at the end.
        key, address, is_locked = secrets.token_bytes(KEY_BYTES), "", True
        if folder:
            self._check_place(read_only)
            key, missing = user_key()
            if missing and not read_only:
                self.note = (
                    f"no key can be kept in {missing}. To continue this run later, use "
                    "--trust-run-folder, or set XDG_STATE_HOME to a folder that you "
                    "can write to and begin anew."
                )
            can_write = os.access(self.folder, os.W_OK)
            if not (can_write or read_only):
                raise OSError(errno.EACCES, "cannot be written", str(self.folder))
            mode = "rwc"
            if read_only:
                is_locked = can_write and os.access(self.path, os.W_OK)
                mode = "rw" if is_locked else "ro&immutable=1"
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
        with self._clear_errors():
            self._database = sqlite3.connect(
                address,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
        try:
            with self._clear_errors():
                self._open(key, trusted, read_only, is_locked)
        except BaseException:
            self.close()
            raise

    def _check_place(self, read_only):
        """Refuse what would lead out of the folder; make the folder."""
        if self.folder.is_symlink():
            raise ValueError(f"{self.folder} is a symbolic link; choose a real folder.")
        if not read_only and not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            self._made_folder = True
        for suffix in _SUFFIXES:
            path = self.path.with_name(self.path.name + suffix)
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise ValueError(f"{path} is a link or not a file; remove it.")
            # Our runs change one database at a time, so they never write such a name.
            if suffix == "-journal" and _names_another_file(path):
                raise ValueError(
                    f"{path} names another file, which SQLite would delete; remove "
                    f"{self.folder}."
                )

    def _open(self, key, trusted, read_only, is_locked):
        execute = self._database.execute
        # A file that somebody else made may hold anything; it is first looked at.
        execute("PRAGMA trusted_schema=OFF")
        execute("PRAGMA cell_size_check=ON")
        execute("PRAGMA mmap_size=0")
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("BEGIN EXCLUSIVE" if is_locked else "BEGIN")
        version = self._version()
        identity, is_ours = self._identify(version, key, trusted)
        self._key = _code(key, "journal", identity, size=KEY_BYTES)
        if version == 0:
            self.is_new = bool(self.folder) and not read_only
            for statement in _SCHEMA.values():
                execute(statement)
        elif version == 1:
            self._migrate()
        if not is_ours:
            self._sign_all()
            execute(
                "INSERT OR REPLACE INTO state VALUES ('identity', ?, ?)",
                (identity, _code(key, identity)),
            )
            execute(f"PRAGMA application_id={APPLICATION_ID}")
            execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if not read_only:  # else it is rolled back at the end
            execute("COMMIT")
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=FULL")  # also after a power cut
        self.old_tokens = [
            token for token in self.get("tokens", []) if _is_token(token)
        ]

    def _identify(self, version, key, trusted):
        """(identity, is_ours): a random name for the journal, on which its codes depend
        too; and whether the key says that this user gave it."""
        identity, code = None, b""
        if version == SCHEMA_VERSION:
            row = self._database.execute(
                "SELECT value, code FROM state WHERE name = 'identity' "
                "AND length(value) < 100 AND length(code) < 100"
            ).fetchone()
            identity, code = row or (None, b"")
        code = code if isinstance(code, bytes) else b""
        is_ours = hmac.compare_digest(_code(key, identity), code)
        if version and not is_ours and not trusted:
            by = (
                "was written by captioner 0.1.0"
                if version == 1
                else "was not made by you on this computer, or its key is lost"
            )
            raise ValueError(
                f"{self.path} {by}. If you trust it, use --trust-run-folder; to begin "
                f"anew, remove {self.folder}."
            )
        if version:
            self._check_pages()
        return identity if is_ours else secrets.token_hex(16), is_ours

    def _version(self):
        """The version of the schema, 0 where there is none yet."""
        found = self._database.execute(
            "SELECT type, name, substr(sql, 1, 1000) FROM sqlite_schema "
            "WHERE sql IS NOT NULL LIMIT 9"
        ).fetchall()
        if not found:
            return 0
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        tables = {name: " ".join(sql.split()) for type, name, sql in found}
        if application == APPLICATION_ID and version != SCHEMA_VERSION:
            raise ValueError(
                f"{self.path} was written by another version of captioner; remove it "
                "to begin anew."
            )
        if application == APPLICATION_ID and tables == _SCHEMA:
            return version
        if application == 0 and tables == _SCHEMA_OF_0_1_0:
            return 1
        raise ValueError(f"{self.path} is not a journal of captioner; remove it.")

    def _check_pages(self):
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise self._damaged(" ".join(found.split()))

    def _damaged(self, reason):
        return ValueError(
            f"{self.path} is damaged ({reason}). Outputs are left as they are; remove "
            f"{self.folder} to begin anew."
        )

    def _migrate(self):
        """Turn the tables of captioner 0.1.0 into today's."""
        execute = self._database.execute
        for name in ("facts", "photos", "thumbnails", "listing"):
            execute(f"ALTER TABLE {name} RENAME TO old_{name}")
        for statement in _SCHEMA.values():
            execute(statement)
        outputs = {}
        for name, value in execute("SELECT name, value FROM old_facts").fetchall():
            if name in ("settings", "run", "finished", "num_photos", "sources"):
                self._set_text(name, value)
            path = pathlib.Path(name.removeprefix("output "))
            if name.startswith("output ") and path.is_file():
                status = path.stat()
                if [status.st_size, status.st_mtime_ns] in json.loads(value):
                    outputs[path.name] = [[status.st_size, file_sha256(path)]]
        self.set("outputs", outputs)
        rows = execute(
            "SELECT name, stamp, digest, captions, kind, reason, before, written, run "
            "FROM old_photos"
        )
        for name, stamp, digest, captions, kind, reason, before, written, run in rows:
            payload = None
            if captions:
                payload = {"captions": json.loads(captions)}
                payload["before"] = before and json.loads(before)
            row = [name, stamp, digest, _dump(payload), kind]
            self._insert("photos", [*row, reason, written, run])
        for row in execute("SELECT name, jpeg FROM old_thumbnails"):
            self._insert("thumbnails", row)
        listed = execute("INSERT INTO listing SELECT * FROM old_listing").rowcount
        self.set("num_listed", listed)
        for name in ("facts", "photos", "thumbnails", "listing"):
            execute(f"DROP TABLE old_{name}")

    def _sign_all(self):
        """Make every row one of this user's."""
        for table in ("state", "photos", "thumbnails"):
            # Read through a list of names: a table must not change while it is read.
            names = self._database.execute(f"SELECT name FROM {table}").fetchall()
            for (name,) in names:
                *row, _ = self._database.execute(
                    f"SELECT * FROM {table} WHERE name = ?", (name,)
                ).fetchone()
                if not all(map(isinstance, row, _TYPES[table])):
                    raise self._damaged(f"a row of {table}")
                self._insert(table, row)

    # Values of the run --------------------------------------------------------------

    def get(self, name, default=None):
        """A value that was set, or `default`."""
        rows = self._rows("state", "SELECT * FROM state WHERE name = ?", name)
        for _, value in rows:
            return json.loads(value)
        return default

    def set(self, name, value):
        """Keep a value that JSON has a form for."""
        self._set_text(name, json.dumps(value))

    def _set_text(self, name, text):
        with self._clear_errors():
            self._insert("state", (name, text))

    def begin(self, settings):
        """Begin a run, or continue one that was not finished.

        Args:
            settings: dict, as JSON has it, of what decides the results.
        """
        with self.transaction():
            self.set("settings", settings)
            self.run = self.get("run", 0)
            if self.get("finished", True):
                self.run += 1
                self.set("run", self.run)
                self.set("finished", False)
            self.set("tokens", [*self.old_tokens, self.token])
            self._execute("DELETE FROM listing")

    def finish(self, **values):
        """The run is finished; keep values of it."""
        with self.transaction():
            for name, value in values.items():
                self.set(name, value)
            self.set("finished", True)
            self.set("tokens", [])

    def forget(self):
        """Forget all photos, so that the next run begins anew."""
        with self.transaction():
            for table in ("photos", "thumbnails", "listing"):
                self._execute(f"DELETE FROM {table}")
            self.set("finished", True)

    # Photos -------------------------------------------------------------------------

    def find(self, name):
        """The `Entry` of a photo, or None."""
        query = "SELECT * FROM photos WHERE name = ?"
        for row in self._rows("photos", query, os.fsencode(name)):
            return _entry(row)
        return None

    def is_empty(self):
        """Whether it knows no photo."""
        return self._execute("SELECT 1 FROM photos").fetchone() is None

    def add(self, entries):
        """Keep entries, in place of those of the same photos."""
        with self._clear_errors():
            for entry in entries:
                row = list(entry)
                row[0], row[3] = os.fsencode(entry.name), _dump(entry.payload)
                row[5], row[6] = _dump(entry.reason), int(entry.written)
                self._insert("photos", row)

    def add_thumbnails(self, thumbnails):
        """Keep pairs of a photo's name and its small JPEG."""
        with self._clear_errors():
            for name, jpeg in thumbnails:
                self._insert("thumbnails", (os.fsencode(name), jpeg))

    def has_thumbnail(self, name):
        """Whether there is a small JPEG of a photo."""
        query = "SELECT 1 FROM thumbnails WHERE name = ?"
        return self._execute(query, (os.fsencode(name),)).fetchone() is not None

    def thumbnail(self, name):
        """The small JPEG of a photo, or None."""
        query = "SELECT * FROM thumbnails WHERE name = ?"
        for _, jpeg in self._rows("thumbnails", query, os.fsencode(name)):
            return jpeg
        return None

    def list(self, places):
        """Say which photos there are: (position, `Photo`) of each."""
        with self._clear_errors():
            self._database.executemany(
                "INSERT OR REPLACE INTO listing VALUES (?, ?, ?)",
                [
                    (position, os.fsencode(photo.name), os.fsencode(photo.relative))
                    for position, photo in places
                ],
            )

    def listed(self):
        """All photos that there are, in order: (position, relative path, `Entry`)."""
        rows = self._rows(
            "photos",
            "SELECT position, relative, photos.* FROM listing JOIN photos USING (name) "
            "ORDER BY position",
            others=2,
        )
        for position, relative, *row in rows:
            yield position, os.fsdecode(relative), _entry(row)

    def not_listed(self):
        """The names of photos that are known and not among those that there are."""
        rows = self._execute(
            "SELECT name FROM photos WHERE name NOT IN (SELECT name FROM listing) "
            "ORDER BY name"
        )
        return (os.fsdecode(name) for (name,) in rows)

    # The database -------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self):
        """What happens within is kept wholly or not at all."""
        self._execute("BEGIN")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:  # a full disk has ended it already
                    self._database.execute("ROLLBACK")
            raise

    def _execute(self, statement, values=()):
        with self._clear_errors():
            return self._database.execute(statement, values)

    def _insert(self, table, row):
        marks = ", ".join("?" * (len(row) + 1))
        self._database.execute(
            f"INSERT OR REPLACE INTO {table} VALUES ({marks})",
            [*row, _code(self._key, table, *row)],
        )

    def _rows(self, table, query, *values, others=0):
        """The rows of a table, without their codes; each is checked. The first `others`
        columns are of other tables."""
        with self._clear_errors():
            for *row, code in self._database.execute(query, values):
                if _code(self._key, table, *row[others:]) != code:
                    raise self._damaged(f"a row of {table}")
                yield row

    @contextlib.contextmanager
    def _clear_errors(self):
        """Errors of SQLite as those that a user understands."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                text = f"{self.folder} is used by another run"
                raise ValueError(text) from error
            if name.startswith("SQLITE_FULL"):
                code = errno.ENOSPC
            elif name.startswith(("SQLITE_READONLY", "SQLITE_PERM")):
                code = errno.EACCES
            elif name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
                code = errno.EIO
            elif name.startswith("SQLITE_NOMEM"):
                code = errno.ENOMEM
            else:
                raise self._damaged(error) from error
            raise OSError(code, os.strerror(code), str(self.path)) from error

    def close(self):
        """Close the file, which another run may use from now on. A new journal that
        knows no photo, as of a run that was refused while it started, is removed."""
        if not hasattr(self, "_database"):
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            query = "SELECT 1 FROM photos"
            if self.is_new and self._database.execute(query).fetchone() is None:
                # Before it is closed: until then nobody else can have it.
                for suffix in _SUFFIXES:
                    path = self.path.with_name(self.path.name + suffix)
                    path.unlink(missing_ok=True)
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        if self._made_folder:
            with contextlib.suppress(OSError):  # something else lies in it
                self.folder.rmdir()


def user_key():
    """The secret key of this user, which is made when it is needed first.

    Returns:
        (bytes, None); or (bytes, why) with a key for this process alone, where none can
        be kept: `why` is a str with the folder and the reason.
    """
    try:
        folder = os.environ.get("XDG_STATE_HOME") or ""
        folder = pathlib.Path(folder)
        if not folder.is_absolute():
            folder = pathlib.Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home
        return secrets.token_bytes(KEY_BYTES), "a home folder"
    path = folder / "captioner" / KEY_FILE
    try:
        if (key := _read_key(path)) is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was faster
                with atomic_write(path, replace=False, sync=True) as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(secrets.token_bytes(KEY_BYTES))
            key = _read_key(path)
        if key is not None:
            return key, None
        why = "it is no key"
    except OSError as error:
        why = error.strerror
    return secrets.token_bytes(KEY_BYTES), f"{path} ({why})"


def _read_key(path):
    try:
        with open(path, "rb") as file:
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(key) != KEY_BYTES:
        raise OSError(errno.EINVAL, "it is damaged", str(path))
    return key


def _code(key, *values, size=16):
    # The form of each value is its own, so two lists never look the same.
    data = repr(values).encode("ascii", "backslashreplace")
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def _names_another_file(path):
    """Whether a rollback journal ends with the name of a super-journal."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) < 2 * len(_ROLLBACK_MARK):
                return False  # the mark is at its beginning, too
            file.seek(-len(_ROLLBACK_MARK), os.SEEK_END)
            return file.read() == _ROLLBACK_MARK
    except FileNotFoundError:
        return False


def _is_token(value):
    return isinstance(value, str) and len(value) == 16 and value.isalnum()


def _dump(value):
    return None if value is None else json.dumps(value)


def _entry(row):
    name, stamp, digest, payload, kind, reason, written, run = row
    return Entry(
        os.fsdecode(name),
        stamp,
        digest,
        None if payload is None else json.loads(payload),
        kind,
        None if reason is None else json.loads(reason),
        bool(written),
        run,
    )


_SCHEMA_OF_0_1_0 = {
    "facts": "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT)",
    "photos": "CREATE TABLE photos ( name BLOB PRIMARY KEY, stamp TEXT, digest BLOB, "
    "captions TEXT, kind TEXT, reason TEXT, before TEXT, written INTEGER, run INTEGER "
    ") WITHOUT ROWID",
    "thumbnails": "CREATE TABLE thumbnails (name BLOB PRIMARY KEY, jpeg BLOB)",
    "listing": "CREATE TABLE listing ( position INTEGER PRIMARY KEY, name BLOB, "
    "relative BLOB )",
}

"""The journal: what it keeps, whom it trusts, and what it notices."""

import contextlib
import os
import sqlite3
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from captioner import journal as module
from captioner.images.photo import Photo
from captioner.journal import Entry, Journal

ENTRIES = [
    Entry("a.jpg", "1:2", b"\0\xff", {"captions": [["ünï\udcff \x1b", -0.5]]}),
    Entry("\udcff\n'.jpg", "", kind="missing", reason="no \udcff", run=3),
    Entry("b.jpg", "", payload=[1, None, "answers"], kind="kept", written=False),
]
SETTINGS = {"preset": "tiny"}


def make(folder, **arguments):
    """A journal with all entries, closed."""
    with contextlib.closing(Journal(folder, **arguments)) as journal:
        journal.begin(SETTINGS)
        with journal.transaction():
            journal.add(ENTRIES)
            journal.add_thumbnails([("a.jpg", b"jpeg")])
            journal.list(
                [(i, Photo(e.name, e.name, "", e.name)) for i, e in enumerate(ENTRIES)]
            )
    return folder / module.JOURNAL_FILE


def contents(journal):
    assert journal.get("settings") == SETTINGS
    assert journal.thumbnail("a.jpg") == b"jpeg"
    return [entry for _, _, entry in journal.listed()]


def test_what_was_kept_is_found_again(tmp_path):
    make(tmp_path / "run")
    with contextlib.closing(Journal(tmp_path / "run")) as journal:
        assert contents(journal) == ENTRIES
        assert [journal.find(entry.name) for entry in ENTRIES] == ENTRIES
        assert journal.find("none.jpg") is None and not journal.has_thumbnail("b.jpg")
        assert journal.get("none", 5) == 5
        assert len(journal.old_tokens) == 1 and journal.token not in journal.old_tokens
        with pytest.raises(ValueError, match="run is used by another run"):
            Journal(tmp_path / "run")


def test_a_transaction_is_kept_wholly_or_not_at_all(tmp_path):
    with contextlib.closing(Journal(tmp_path)) as journal:
        with pytest.raises(KeyboardInterrupt):
            with journal.transaction():
                journal.set("half", True)
                raise KeyboardInterrupt
        assert journal.get("half") is None


def test_a_journal_that_knows_nothing_leaves_nothing(tmp_path):
    Journal(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").touch()
    Journal(tmp_path / "run").close()
    assert os.listdir(tmp_path / "run") == ["other"]


def test_a_run_has_the_folder_while_it_works(tmp_path):
    with contextlib.closing(Journal(tmp_path / "run")):
        with pytest.raises(ValueError, match="is used by another run"):
            Journal(tmp_path / "run")
        assert (tmp_path / "run" / "journal.sqlite").exists()


def changed(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def with_a_view(path):
    changed(
        path,
        "ALTER TABLE photos RENAME TO other",
        "CREATE VIEW photos AS SELECT * FROM other",
    )


def with_a_trigger(path):
    changed(
        path,
        "CREATE TRIGGER planted AFTER INSERT ON photos BEGIN DELETE FROM photos; END",
    )


def without_its_code(path):
    changed(path, "UPDATE state SET code = 5 WHERE name = 'identity'")


def of_a_later_version(path):
    changed(path, "PRAGMA user_version=9")


def of_another_program(path):
    path.unlink()
    changed(path, "CREATE TABLE bookmarks (url)")


def no_database(path):
    path.write_bytes(b"no journal" * 1000)


def a_link(path):
    path.rename(path.with_name("theirs"))
    path.symlink_to("theirs")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (with_a_view, "is not a journal of captioner"),
        (with_a_trigger, "is not a journal of captioner"),
        (without_its_code, "was not made by you"),
        (of_a_later_version, "another version"),
        (of_another_program, "is not a journal of captioner"),
        (no_database, "is damaged"),
        (a_link, "is a link or not a file"),
        (a_pipe, "is a link or not a file"),
    ],
)
def test_what_is_no_journal_of_this_user_is_refused_unchanged(
    tmp_path, change, complaint
):
    path = make(tmp_path)
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ValueError, match=complaint):
        Journal(tmp_path)
    assert path.is_fifo() or path.read_bytes() == before


def rollback_journal_that_names(path, num_pages):
    """A rollback journal of a transaction that changed another database, too."""
    mark, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(path)
    begin = mark + struct.pack(">5I", 0, 0, num_pages, 512, 4096)
    end = struct.pack(">2I", len(name), sum(name)) + mark
    # The page that no database has: where locks lie.
    return begin.ljust(512, b"\0") + struct.pack(">I", 2**30 // 4096 + 1) + name + end


@pytest.mark.parametrize("read_only", [False, True])
def test_a_journal_that_comes_with_photos_deletes_no_other_file(tmp_path, read_only):
    # SQLite deletes a super-journal that a rollback journal names.
    (tmp_path / "letter.txt").write_text("dear all")
    path = make(tmp_path / "run")
    path.with_name(path.name + "-journal").write_bytes(
        rollback_journal_that_names(
            tmp_path / "letter.txt", path.stat().st_size // 4096
        )
    )
    complaint = ""
    try:
        Journal(tmp_path / "run", read_only=read_only).close()
    except ValueError as error:
        complaint = str(error)
    assert (tmp_path / "letter.txt").read_text() == "dear all"
    assert "names another file, which SQLite would delete" in complaint


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("change", [a_link, a_pipe])
def test_links_and_pipes_beside_a_journal_are_refused(tmp_path, suffix, change):
    path = make(tmp_path)
    beside = path.with_name(path.name + suffix)
    beside.write_bytes(b"theirs")
    change(beside)
    with pytest.raises(ValueError, match=f"sqlite{suffix} is a link or not a file"):
        Journal(tmp_path)


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "run").symlink_to("theirs")
    with pytest.raises(ValueError, match="run is a symbolic link"):
        Journal(tmp_path / "run")
    assert os.listdir(tmp_path / "theirs") == []


@pytest.mark.parametrize(
    "change",
    [
        'UPDATE photos SET payload = \'{"captions": [["mine", 0]]}\'',
        "UPDATE photos SET stamp = '1:3'",
        "UPDATE photos SET written = 1 - written",
        "UPDATE photos SET name = 'c' || name",
        "UPDATE state SET value = '7'",
        "UPDATE thumbnails SET jpeg = 'other'",
        "INSERT INTO photos SELECT 'new', stamp, digest, payload, kind, reason, "
        "written, run, code FROM photos LIMIT 1",
    ],
)
def test_a_changed_row_is_noticed(tmp_path, change):
    everything = "SELECT 9 + row_number() OVER (), name, name FROM photos"
    changed(make(tmp_path), change, f"INSERT INTO listing {everything}")
    with pytest.raises(ValueError, match="was not made by you|is damaged .a row of"):
        with contextlib.closing(Journal(tmp_path)) as journal:
            contents(journal)


damages = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(["cut", "insert", "replace"]),
        strategies.floats(0, 1),
        strategies.binary(min_size=1, max_size=40),
    ),
    min_size=1,
    max_size=4,
)


def check_damaged_journals(folder, examples):
    good = make(folder).read_bytes()

    @settings(max_examples=examples, deadline=None, database=None)
    @given(damages, strategies.booleans())
    def check(damages, trusted):
        data = good
        for how, place, some in damages:
            at = int(place * len(data))
            end = {"cut": len(data), "insert": at, "replace": at + len(some)}[how]
            data = data[:at] + some + data[end:]
        (folder / "journal.sqlite").write_bytes(data)
        for suffix in ("-wal", "-journal"):
            (folder / f"journal.sqlite{suffix}").unlink(missing_ok=True)
        try:
            with contextlib.closing(Journal(folder, trusted)) as journal:
                found = [entry for _, _, entry in journal.listed()]
                found += filter(None, (journal.find(each.name) for each in ENTRIES))
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert trusted or all(entry in ENTRIES for entry in found)

    check()


def test_damaged_journals_are_refused_or_harmless(tmp_path):
    check_damaged_journals(tmp_path, 60)


@pytest.mark.fuzz
@pytest.mark.slow
def test_very_many_damaged_journals_are_refused_or_harmless(tmp_path):
    check_damaged_journals(tmp_path, 5_000)


def test_a_row_of_another_journal_is_noticed(tmp_path):
    for folder in ("one", "two"):
        make(tmp_path / folder)
    changed(
        tmp_path / "one/journal.sqlite",
        f"ATTACH '{tmp_path / 'two/journal.sqlite'}' AS two",
        "INSERT OR REPLACE INTO photos SELECT * FROM two.photos",
    )
    with contextlib.closing(Journal(tmp_path / "one")) as journal:
        with pytest.raises(ValueError, match="a row of photos"):
            contents(journal)


def test_a_journal_of_another_user_is_used_only_if_trusted(tmp_path, monkeypatch):
    path = make(tmp_path / "run")
    before = path.read_bytes()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(ValueError, match="not made by you on this computer, or its k"):
        Journal(tmp_path / "run")
    with contextlib.closing(
        Journal(tmp_path / "run", trusted=True, read_only=True)
    ) as journal:
        assert contents(journal) == ENTRIES
    assert path.read_bytes() == before
    for trusted in (True, False):  # from now on it is this user's
        with contextlib.closing(Journal(tmp_path / "run", trusted)) as journal:
            assert contents(journal) == ENTRIES
    assert (tmp_path / "state/captioner/journal.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("home", ["a file", "damaged", "no home"])
def test_without_a_place_for_the_key_a_run_works_and_says_so(
    tmp_path, monkeypatch, home
):
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    if home == "a file":
        state.touch()
    elif home == "damaged":
        (state / "captioner").mkdir(parents=True)
        (state / "captioner" / "journal.key").write_bytes(b"short")
    else:
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    with contextlib.closing(Journal(tmp_path / "run")) as journal:
        assert "no key can be kept in" in journal.note
        assert "XDG_STATE_HOME" in journal.note
        journal.begin(SETTINGS)
        journal.add(ENTRIES)
    with pytest.raises(ValueError, match="its key is lost"):
        Journal(tmp_path / "run")
    with contextlib.closing(Journal(tmp_path / "run", trusted=True)) as journal:
        assert journal.find("a.jpg") == ENTRIES[0]


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_a_disk_that_takes_no_more_is_an_os_error(tmp_path):
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.begin(SETTINGS)
        journal._database.execute("PRAGMA max_page_count=1")
        with pytest.raises(OSError) as raised:
            with journal.transaction():
                many = [Entry(str(i), "", payload="x" * 1000) for i in range(99)]
                journal.add(many)
        assert raised.value.strerror == "No space left on device"
        assert raised.value.filename == str(tmp_path / "journal.sqlite")
        assert journal.is_empty()


# As captioner 0.1.0 wrote it.
OLD = """
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
INSERT INTO facts VALUES ('settings', '{"preset": "tiny"}'), ('run', '2'),
    ('finished', 'true'), ('token', '"../../evil"');
INSERT INTO photos VALUES (CAST('a.jpg' AS BLOB), '1:2', X'00', '[["a dog", -1.5]]',
    NULL, NULL, '{"text": null}', 1, 1);
INSERT INTO photos VALUES (CAST('b.jpg' AS BLOB), '3:4', NULL, NULL, 'empty',
    '"the file is empty"', NULL, 1, 1);
INSERT INTO thumbnails VALUES (CAST('a.jpg' AS BLOB), X'6a706567');
INSERT INTO listing VALUES (0, CAST('a.jpg' AS BLOB), CAST('a.jpg' AS BLOB)),
    (1, CAST('b.jpg' AS BLOB), CAST('b.jpg' AS BLOB));
"""


def test_a_journal_of_0_1_0_is_taken_over_if_trusted(tmp_path):
    database = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(OLD)
    output = tmp_path / "captions.csv"
    output.write_text("path,caption\n")
    status = output.stat()
    database.execute(
        "INSERT INTO facts VALUES (?, ?)",
        (f"output {output}", f"[[{status.st_size}, {status.st_mtime_ns}]]"),
    )
    database.close()
    with pytest.raises(ValueError, match="was written by captioner 0.1.0. If you"):
        Journal(tmp_path)
    for trusted in (True, False):
        with contextlib.closing(Journal(tmp_path, trusted)) as journal:
            payload = {"captions": [["a dog", -1.5]], "before": {"text": None}}
            assert contents(journal) == [
                Entry("a.jpg", "1:2", b"\0", payload, run=1),
                Entry("b.jpg", "3:4", None, None, "empty", "the file is empty", run=1),
            ]
            assert journal.get("num_listed") == 2 and journal.get("run") == 2
            assert list(journal.get("outputs")) == ["captions.csv"]
            assert journal.old_tokens == []

"""Tar and zip archives: as people's programs write them, damaged, and made to harm."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from captioner.images import archive_members, tar_archive, zip_archive
from captioner.images.archive_members import ArchiveError
from captioner.images.image_files import ImageError
from captioner.images.left_aside import LeftAside
from captioner.images.photo import Photo
from captioner.images.photo_sources import find_photos
from captioner.images.tar_archive import read_tar
from captioner.images.zip_archive import read_zip

COMPRESSED = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tar(*members, format=tarfile.PAX_FORMAT):
    """The bytes of a tar of (name, data) or `TarInfo`s."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def with_field(data, at, field):
    """A tar whose header at some place has another field, and a right checksum."""
    start, header = at // 512 * 512, bytearray(data[at // 512 * 512 :][:512])
    header[at - start : at - start + len(field)] = field
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    return data[:start] + bytes(header) + data[start + 512 :]


def write_zip(path, *members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)


def rows(path):
    """(name, kind of the error or content) of each photo of an archive."""
    found = []
    for photo in find_photos(path):
        try:
            found.append((photo.name.removeprefix(f"{path}/"), photo.read()))
        except ImageError as error:
            found.append((photo.name.removeprefix(f"{path}/"), error.kind))
    return found


THREE = [("1.jpg", b"one"), ("2.jpg", b"2" * 1000), ("3.jpg", b"three")]
LONG = "folder/" * 30 + "name" * 20 + ".jpg"


# Tar --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_all_formats_of_tar(format):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    ustar = format == tarfile.USTAR_FORMAT
    long = "folder/" * 20 + "name" * 20 + ".jpg" if ustar else LONG
    members = [(long, b"one"), ("ünï.jpg", b""), ("./a/2.jpg", b"2" * 512)]
    old = tarfile.TarInfo("old.jpg")
    old.mtime = -5e8 if format == tarfile.GNU_FORMAT else 0  # before 1970
    Path("x.tar").write_bytes(tar(folder, *members, old, format=format))
    assert rows("x.tar") == [*members, ("old.jpg", b"")]
    relative = [photo.relative for photo in find_photos("x.tar")]
    assert relative == [f"x/{long}", "x/ünï.jpg", "x/a/2.jpg", "x/old.jpg"]


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_what_compresses_a_tar_its_first_bytes_say(suffix):
    data = COMPRESSED[suffix](tar(*THREE))
    for path in (f"x.{suffix}", "y.tar", "z.tgz"):
        Path(path).write_bytes(data)
        assert rows(path) == THREE
    # Several streams, as parallel compressors write them, with null bytes after them.
    half = len(tar(*THREE)) // 2
    compress = COMPRESSED[suffix]
    parts = compress(tar(*THREE)[:half]), compress(tar(*THREE)[half:]), compress(b"")
    Path("x.tar").write_bytes(b"".join(parts) + bytes(512))
    assert rows("x.tar") == THREE
    Path("x.tar").write_bytes(data[:-20])
    *_, (name, kind) = rows("x.tar")
    assert (name, kind) == ("x.tar", "unreadable")


def test_a_plain_tar_may_be_called_gz():
    Path("x.tar.gz").write_bytes(tar(*THREE))
    assert rows("x.tar.gz") == THREE


def test_archives_that_were_joined():
    data = tar(("0.jpg", b"zero"))
    Path("x.tar").write_bytes(data + tar(*THREE))
    assert rows("x.tar") == [("0.jpg", b"zero"), *THREE]


def test_a_damaged_header_in_the_middle_is_a_row():
    members = [(f"{number}.jpg", b"x" * 600) for number in range(10)]
    data = tar(*members)
    at = 4 * (512 + 1024)
    for damage in (b"\xff" * 512, os.urandom(512), bytes(512), bytes(1536)):
        Path("x.tar").write_bytes(data[:at] + damage + data[at + len(damage) :])
        found = rows("x.tar")
        assert found[:4] == members[:4]
        assert found[4:] == [("x.tar", "unreadable")]


@pytest.mark.parametrize("end", range(1, 4 * 512, 211))
def test_a_tar_that_is_cut_off_is_a_row(end):
    data = tar(*THREE)[: 3 * 512 + 3 * 512 + 512]
    for compress in (bytes, gzip.compress):
        Path("x.tar").write_bytes(compress(data[:-end]))
        *found, last = rows("x.tar")
        assert found == THREE[: len(found)]
        assert last == ("x.tar", "unreadable")


@pytest.mark.parametrize(
    "at, field",
    [
        (124, b"\xff" * 11 + b"\x00"),  # -256 in binary
        (124, b"-0000001000\0"),
        (124, b"0o1_0\0"),
        (124, b"\x80" + b"\xff" * 11),
        (124, b"99999999999\0"),
    ],
)
@pytest.mark.parametrize("name", ["2.jpg", "2.txt"])
def test_sizes_that_are_none_end_in_a_row(at, field, name):
    data = with_field(tar(THREE[0], (name, b"x" * 600), THREE[2]), 1024 + at, field)
    for compress in (bytes, gzip.compress):
        Path("x.tar").write_bytes(compress(data))
        first, *others = rows("x.tar")
        assert first == THREE[0]
        assert others[-1] == ("x.tar", "unreadable") and len(others) <= 2


def test_a_size_in_binary():
    data = with_field(tar(*THREE), 124, b"\x80" + bytes(10) + b"\x03")
    Path("x.tar").write_bytes(data)
    assert rows("x.tar") == THREE


def pax(data, name=b"1.jpg"):
    """A tar whose member has an extended header of these bytes."""
    header = tarfile.TarInfo("pax")
    header.size, header.type = len(data), b"x"
    padding = bytes(-len(data) % 512)
    return header.tobuf() + data + padding + tar((os.fsdecode(name), b"photo"))


@pytest.mark.parametrize(
    "data",
    [
        b"0 path=a\n",
        b"999 path=a\n",
        b"-1 path=a\n",
        b"12 path=abc.jpg",
        b"path=a",
        b"10 pathabc\n",
        b"18 size=-00000512\n",
        b"12 size=abc\n",
    ],
)
def test_damaged_extended_headers(data):
    Path("x.tar").write_bytes(pax(data))
    assert rows("x.tar") == [("x.tar", "unreadable")]


def test_sparse_files_are_passed_over():
    Path("x.tar").write_bytes(pax(b"22 GNU.sparse.major=1\n"))
    assert rows("x.tar") == [("1.jpg", "unreadable")]
    # The old form: two more blocks tell where the pieces are.
    data = tar(("1.jpg", b"x"), THREE[1])
    data = with_field(with_field(data, 156, b"S"), 482, b"\1")
    more = bytes(504) + b"\1" + bytes(7) + bytes(512)
    Path("x.tar").write_bytes(data[:512] + more + data[512:])
    assert rows("x.tar") == [("1.jpg", "unreadable"), THREE[1]]


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_long_names_cost_no_memory(kind):
    name = b"n" * 100_000_000
    header = tarfile.TarInfo("long")
    header.size, header.type = len(name), kind
    name += bytes(-len(name) % 512)
    data = gzip.compress(header.tobuf() + name + tar(THREE[0]), 1)
    assert len(data) < 2_000_000
    Path("x.tar.gz").write_bytes(data)
    del name
    tracemalloc.start()
    found = rows("x.tar.gz")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert [kind for _, kind in found] == ["unreadable"]


def test_names_that_are_no_path_are_rows():
    name = "n" * 5_000 + ".jpg"
    Path("x.tar").write_bytes(tar((name, b""), THREE[0], format=tarfile.GNU_FORMAT))
    (long, kind), other = rows("x.tar")
    assert len(long) < 300 and kind == "unreadable" and other == THREE[0]
    write_zip("x.zip", (name, b""), THREE[0])
    assert rows("x.zip") == [(long, kind), other]


def test_a_bomb_ends(monkeypatch):
    monkeypatch.setattr(tar_archive, "FREE_BYTES", 10_000_000)
    monkeypatch.setattr(tar_archive, "MAX_INFLATED_MEMBER_BYTES", 2_000_000)
    members = [(f"{number}.jpg", bytes(1_000_000)) for number in range(30)]
    Path("x.tar.bz2").write_bytes(bz2.compress(tar(*members)))
    tracemalloc.start()
    number = 0
    for photo in find_photos("x.tar.bz2"):
        number += 1
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    assert "inflates to more than" in photo.error.reason and number < 20


def test_compression_that_needs_much_memory_is_refused(monkeypatch):
    monkeypatch.setattr(tar_archive, "MAX_DICTIONARY_BYTES", 2**20)
    Path("x.tar.xz").write_bytes(lzma.compress(tar(*THREE)))
    assert rows("x.tar.xz") == [("x.tar.xz", "unreadable")]


def test_many_null_bytes_are_no_end(monkeypatch):
    monkeypatch.setattr(tar_archive, "MAX_ZEROS", 20_000)
    Path("x.tar").write_bytes(tar(*THREE) + bytes(40_000))
    assert rows("x.tar") == [*THREE, ("x.tar", "unreadable")]


def test_a_photo_that_holds_its_bytes_can_let_them_go():
    Path("x.tar.gz").write_bytes(gzip.compress(tar(*THREE)))
    photos = list(find_photos("x.tar.gz"))
    assert [photo.num_bytes_held for photo in photos] == [3, 1000, 5]
    without = photos[1].without_bytes()
    assert without.num_bytes_held == 0 and without.name == photos[1].name
    Path("x.tar").write_bytes(tar(*THREE))
    assert [photo.num_bytes_held for photo in find_photos("x.tar")] == [0, 0, 0]


# Zip --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_all_compressions_of_zip(method):
    members = [*THREE, ("ünï.jpg", bytes(1_000_000)), ("4.jpg", os.urandom(300_000))]
    write_zip("x.zip", *members, compression=method)
    assert rows("x.zip") == members


def test_zip64_and_bytes_before_and_after(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    write_zip("x.zip", *THREE)
    assert b"PK\6\6" in Path("x.zip").read_bytes()
    assert rows("x.zip") == THREE
    Path("x.zip").write_bytes(b"#!/bin/sh\nunzip" + Path("x.zip").read_bytes())
    assert rows("x.zip") == THREE
    with zipfile.ZipFile("y.zip", "w") as archive:
        archive.writestr(*THREE[0])
        archive.comment = b"comment " * 1000
    assert rows("y.zip") == THREE[:1]


def test_sizes_in_the_zip64_field():
    write_zip("x.zip", ("1.jpg", b"one"))
    data = Path("x.zip").read_bytes()
    at = data.index(b"PK\1\2")
    extra = struct.pack("<2H3Q", 1, 24, 3, 3, 0)
    entry = bytearray(data[at : at + 46])
    entry[20:28], entry[42:46] = b"\xff" * 8, b"\xff" * 4
    entry[30:32] = struct.pack("<H", len(extra))
    end = bytearray(data[-22:])
    end[12:16] = struct.pack("<L", 46 + 5 + len(extra))
    Path("x.zip").write_bytes(data[:at] + bytes(entry) + b"1.jpg" + extra + bytes(end))
    assert rows("x.zip") == [("1.jpg", b"one")]


def test_names_of_a_zip():
    # Made on macOS, which does not say that a name is UTF-8; on DOS; and with a mark.
    write_zip("x.zip", ("aaa.jpg", b"1"), ("b.jpg", b"2"), ("ü.jpg", b"3"))
    data = Path("x.zip").read_bytes()
    data = data.replace(b"aaa.jpg", "aü.jpg".encode()).replace(b"b.jpg", b"\x81.jpg")
    Path("x.zip").write_bytes(data)
    assert [name for name, _ in rows("x.zip")] == ["aü.jpg", "ü.jpg", "ü.jpg (2)"]


def test_thousands_of_equal_names():
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("1.jpg", b"one")
        archive.filelist *= 4_000
    Path("x.zip").write_bytes(b"-" * 20_000 + Path("x.zip").read_bytes())
    found = rows("x.zip")
    assert len(found) == 4_000 and found[0] == ("1.jpg", b"one")
    assert found[-1] == ("1.jpg (4000)", "clash")


def test_files_that_share_bytes_are_a_bomb():
    with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", os.urandom(10_000))
        archive.filelist *= 50
    found = rows("x.zip")
    assert found[-1] == ("x.zip", "unreadable") and len(found) < 5


def test_what_cannot_be_read_in_a_zip_is_a_row():
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    write_zip("x.zip", (link, b"/etc/passwd"), ("1.jpg", b"one"), ("2.jpg", b"two"))
    data = bytearray(Path("x.zip").read_bytes())
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[entry + 8] |= 1  # encrypted
    entry = data.index(b"PK\1\2", entry + 1)
    data[entry + 10] = 99
    Path("x.zip").write_bytes(data)
    assert [kind for _, kind in rows("x.zip")] == ["unreadable"] * 3


@pytest.mark.parametrize("end", [1, 21, 23, 60, 100, 150])
def test_a_zip_that_is_cut_off_is_a_row(end):
    write_zip("x.zip", *THREE)
    Path("x.zip").write_bytes(Path("x.zip").read_bytes()[:-end])
    assert rows("x.zip") == [("x.zip", "unreadable")]


def test_a_damaged_directory_is_a_row():
    write_zip("x.zip", *THREE)
    data = bytearray(Path("x.zip").read_bytes())
    data[data.rindex(b"PK\1\2")] = 0
    Path("x.zip").write_bytes(data)
    assert rows("x.zip") == [*THREE[:2], ("x.zip", "unreadable")]
    write_zip("x.zip", *THREE)
    data = bytearray(Path("x.zip").read_bytes())
    data[-14:-10] = b"\2\0\2\0"  # "two files"
    Path("x.zip").write_bytes(data)
    assert rows("x.zip")[-1] == ("x.zip", "unreadable")


def test_a_member_that_inflates_to_more_than_it_says():
    write_zip("x.zip", ("1.jpg", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)
    data = Path("x.zip").read_bytes()
    at = data.index(b"PK\1\2")
    data = data[: at + 24] + struct.pack("<L", 100) + data[at + 28 :]
    Path("x.zip").write_bytes(data)
    (photo,) = find_photos("x.zip")
    tracemalloc.start()
    with pytest.raises(ImageError, match="cannot be read: it is damaged"):
        photo.read()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


# Both -------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", ".", "..", "...", "x", ".hidden"])
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_relative_names_lead_out_of_no_folder(base, suffix):
    names = ["1.jpg", "./2.jpg", "a//3.jpg", "a/./4.jpg", "../5.jpg", "/6.jpg", "..jpg"]
    path = base + suffix
    if suffix == ".zip":
        write_zip(path, *((name, b"photo") for name in names))
    else:
        Path(path).write_bytes(tar(*((name, b"photo") for name in names)))
    photos = list(find_photos(path))
    assert len(photos) == 6  # one is hidden
    for photo in photos:
        parts = photo.relative.split("/")
        assert len(parts) > 1 and not {"", ".", ".."}.intersection(parts)
    assert len({photo.relative.split("/")[0] for photo in photos}) == 1
    assert Photo("a", "/../b/./c", "", "a").relative == "b/c"


def test_other_files_in_an_archive_are_counted():
    members = [("1.jpg", b""), ("1.txt", b""), ("a/2.cr2", b""), ("a/.mp4", b"")]
    Path("x.tar").write_bytes(tar(*members, ("b.mp4", b"")))
    write_zip("x.zip", *members)
    left_aside = LeftAside()
    assert len(list(find_photos(["x.tar", "x.zip"], left_aside=left_aside))) == 2
    assert left_aside.counts() == {".cr2": 2, ".mp4": 1}


def test_there_is_a_most_number_of_members(monkeypatch):
    monkeypatch.setattr(tar_archive, "MAX_MEMBERS", 2)
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", 2)
    write_zip("x.zip", *THREE)
    Path("x.tar").write_bytes(tar(*THREE))
    for path in ("x.zip", "x.tar"):
        assert rows(path) == [*THREE[:2], (path, "unreadable")]
    assert archive_members.MAX_MEMBERS > 5_000_000


def test_a_bomb_of_headers_ends(monkeypatch):
    monkeypatch.setattr(tar_archive, "FREE_MEMBERS", 100)
    data = gzip.compress(tar(*[(f"{number % 9}.jpg", b"") for number in range(5_000)]))
    Path("x.tar.gz").write_bytes(data)
    found = rows("x.tar.gz")
    assert found[-1] == ("x.tar.gz", "unreadable")
    assert len(found) == 100 + len(data) // 32 + 1


@pytest.mark.parametrize("read", [read_tar, read_zip])
def test_what_is_no_archive(read):
    os.mkfifo("fifo")
    Path("folder").mkdir()
    for path in ("fifo", "folder", "gone"):
        with pytest.raises(OSError):
            next(read(path))
    for data in (b"", b"PK", b"PK\5\6", b"no archive" * 100, b"\x28\xb5\x2f\xfd" * 300):
        Path("file").write_bytes(data)
        with pytest.raises((ArchiveError, EOFError)):
            next(read("file"))

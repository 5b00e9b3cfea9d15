"""Archives and lists with all kinds of damage end in photos, error rows or one line.

By default some hundred of each; `-m slow` tries for minutes.
"""

import bz2
import gzip
import io
import itertools
import lzma
import os
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner.images.image_files import ImageError
from captioner.images.path_list import read_path_list
from captioner.images.photo_sources import find_photos

MEMBERS = [
    ("a/1.jpg", b"one"),
    ("2.jpg", bytes(2_000)),
    ("x" * 120 + "/ü.jpg", b"3" * 600),
    ("notes.txt", b"text"),
    ("2.jpg", b"again"),
]
MOST_BYTES = 60_000_000


def tar(format):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "y" * 200
        archive.addfile(info)
    return file.getvalue()


def zipped(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in MEMBERS[:-1]:
            archive.writestr(name, data)
    return file.getvalue()


TARS = [tar(format) for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
ZIPS = [zipped(method) for method in (0, 8, 12, 14)]
# Sizes, checksums and offsets that programs have stumbled over.
TELLING = st.sampled_from(
    [b"\0", b"\xff", b"\xff" * 4, b"\xff" * 8, b"\x80", b"77777777777\0", b"-1", b"L"]
    + [b"x", b"g", b"S", b"PK\1\2", b"PK\5\6", b"PK\6\7", b"PK\6\6", b"99 path=", b"/"]
    + [b"\x7f", b"\1", b"\n", b"../", bytes(512), b"\xff\xfe", b"\0\0\0\x80"]
)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "cut", "end", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(TELLING, st.binary(max_size=12)),
    ),
    max_size=6,
)


def damaged(data, damage):
    for how, place, piece in damage:
        at = int(place * len(data))
        if how == "replace":
            data = data[:at] + piece + data[at + len(piece) :]
        elif how == "insert":
            data = data[:at] + piece + data[at:]
        elif how == "cut":
            data = data[:at] + data[at + len(piece) :]
        elif how == "end":
            data = data[:at]
        else:
            data = data[: at + 1_000] + data[at:]
    return data


def with_right_checksums(data):
    """A tar whose headers have checksums that fit: the rest of them counts."""
    data = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        header = data[at : at + 512]
        if header[257:262] == b"ustar":
            total = 256 + sum(header[:148]) + sum(header[156:])
            data[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(data)


def check_archive(path, data):
    path.write_bytes(data)
    tracemalloc.start()
    try:
        photos = list(itertools.islice(find_photos(str(path)), 1_000))
        for photo in photos:
            parts = photo.relative.split("/")
            assert not {"", ".", ".."}.intersection(parts)
            try:
                assert isinstance(photo.read(), bytes)
            except ImageError as error:
                assert "\n" not in str(error)
        assert len(photos) < 100
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def check_tar(folder, data, damage, compress, mends, damage_after):
    data = damaged(data, damage)
    if mends:
        data = with_right_checksums(data)
    check_archive(folder / "x.tar", damaged(compress(data), damage_after))


def check_zip(folder, data, damage):
    check_archive(folder / "x.zip", damaged(data, damage))


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["1.jpg", "a/2.jpg", ".", "/", "..", '"1.jpg"', "a\\2.jpg"]),
        st.sampled_from(["1.jpg,cat", " 1.jpg ", "# no", "\ufeff", "/etc/passwd", ""]),
        st.text(max_size=20),
    ),
    max_size=8,
)
LISTS = st.builds(
    lambda lines, end, encoding: (end.join(lines) + end).encode(encoding, "ignore"),
    TEXTS,
    st.sampled_from(["\n", "\r\n", "\0", "\r"]),
    st.sampled_from(
        "utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 utf-32-le cp1252".split()
    ),
)


def check_list(folder, data, damage):
    path = folder / "list"
    path.write_bytes(damaged(data, damage))
    try:
        found = list(itertools.islice(read_path_list(path), 1_000))
    except ValueError as error:
        assert "\n" not in str(error).replace(str(path), "")
        return
    assert len(found) < 500
    for name in found:
        real = os.path.realpath(name) if "\0" not in name else name
        assert not (os.path.isdir(real) and str(folder).startswith(real + os.sep))
        assert real != os.sep


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "work/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for name in ("1.jpg", "a/2.jpg"):
        (tmp_path / "work" / name).write_bytes(b"photo")
    return tmp_path / "work"


def fuzzed(check, *arguments):
    """The tests of a check: some examples by default, many with `-m slow`."""

    def quick(here):
        tries(150)(here)

    @pytest.mark.fuzz
    @pytest.mark.slow
    def long(here):
        tries(5_000)(here)

    def tries(number):
        options = settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        examples = given(st.tuples(*arguments))
        return lambda here: options(examples(lambda each: check(here, *each)))()

    return quick, long


test_tars, test_tars_for_long = fuzzed(
    check_tar,
    st.sampled_from(TARS),
    DAMAGE,
    st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress, zlib.compress]),
    st.booleans(),
    st.one_of(st.just([]), DAMAGE),
)
test_zips, test_zips_for_long = fuzzed(check_zip, st.sampled_from(ZIPS), DAMAGE)
test_lists, test_lists_for_long = fuzzed(
    check_list, LISTS, st.one_of(st.just([]), DAMAGE)
)


def check_round_trip(folder, members, format, compress, method):
    """Whole archives are read as those that wrote them meant them."""
    expected = {}
    for name, data in members:
        expected.setdefault(name + ".jpg", data)
    with zipfile.ZipFile(folder / "x.zip", "w", method) as archive:
        for name, data in expected.items():
            archive.writestr(name, data)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in expected.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (folder / "x.tar").write_bytes(compress(file.getvalue()))
    for path in ("x.zip", "x.tar"):
        found = {photo.name[6:]: photo.read() for photo in find_photos(path)}
        assert found == expected


PARTS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0/."),
    min_size=1,
    max_size=90,
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
test_whole_archives, test_whole_archives_for_long = fuzzed(
    check_round_trip,
    st.lists(st.tuples(NAMES, st.binary(max_size=1_500)), max_size=4),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
    st.sampled_from([0, 8, 12, 14]),
)

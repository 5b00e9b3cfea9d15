"""Lists of files as people and programs write them, and lists that mean harm."""

import os
import sys
from pathlib import Path

import pytest

from captioner.images import path_list
from captioner.images.path_list import read_path_list
from captioner.images.photo_sources import find_photos

PATHS = ["photos/sub/ä horses.jpg", "photos/sub/kitten.jpg"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with two photos; above it there is another one."""
    for path in ["work/" + path for path in PATHS] + ["above.jpg"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"photo")
    monkeypatch.chdir(tmp_path / "work")


def listed(data, **keywords):
    Path("list").write_bytes(data)
    return list(read_path_list("list", **keywords))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_a_list_is_decoded_by_its_mark(encoding, end):
    mark = "\ufeff" if encoding.endswith("-be") else ""
    text = mark + "".join(path + end for path in PATHS)
    assert listed(text.encode(encoding)) == PATHS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_without_a_mark_is_refused(encoding):
    # Split at its null bytes, each of these would caption the whole disk.
    for text in ("".join(path + "\n" for path in PATHS), "photos/1.jpg", "./a\n"):
        with pytest.raises(ValueError, match="iconv -f UTF-16LE -t UTF-8 list"):
            listed(text.encode(encoding))


def test_what_is_neither_utf_8_nor_a_name_is_refused():
    with pytest.raises(ValueError, match="line 2 is not UTF-8 .* iconv -f CP1252 "):
        listed("photos/sub/kitten.jpg\r\nphotos/sub/ä horses.jpg\r\n".encode("cp1252"))
    # Not every name on a disk is UTF-8, and `find` writes them as they are.
    odd = b"photos/\xe4.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"photo")
    assert listed(odd + b"\n") == listed(odd + b"\0") == [os.fsdecode(odd)]


def test_damaged_text_behind_a_mark_is_refused():
    for data in (
        b"\xff\xfea",
        b"\xff\xfe\x00\xd8a\x00",
        b"\xff\xfe\0\0\xff\xff\xff\xff",
    ):
        with pytest.raises(ValueError, match="has the byte order mark of UTF-"):
            listed(data)


def test_null_bytes_separate_only_paths():
    odd = "photos/two\nlines.jpg"
    Path(odd).write_bytes(b"photo")
    assert listed(os.fsencode("\0".join([odd, "gone.jpg", *PATHS]))) == [
        odd,
        "gone.jpg",
        *PATHS,
    ]
    Path("a").write_bytes(b"photo")
    assert listed(b"a\0" + os.fsencode(PATHS[0])) == ["a", PATHS[0]]
    for data in (b"b\0c.jpg\0", b"one.jpg\ntwo.jpg\0three.jpg\n"):
        with pytest.raises(ValueError, match="they do not separate paths: entry 1"):
            listed(data)


@pytest.mark.parametrize(
    "line",
    [
        '"{}"',
        "'{}'",
        "{} ",
        "\t{}",
        "{},a cat",
        '"{}","a cat, and a dog"',
        "{};a cat",
        "{}\ta cat",
    ],
)
@pytest.mark.parametrize("is_windows", [False, True])
def test_lines_as_other_programs_write_them(line, is_windows):
    paths = [path.replace("/", "\\") if is_windows else path for path in PATHS]
    text = "".join(line.format(path) + "\r\n" for path in paths)
    assert listed(text.encode()) == PATHS


def test_names_in_another_unicode_form():
    assert listed("photos/sub/a\u0308 horses.jpg\n".encode()) == PATHS[:1]


def test_a_name_that_is_there_is_taken_as_it_is():
    odd = ['"kitten.jpg"', "kitten.jpg ", "kitten.jpg,cat", "# kitten.jpg", "a\\b.jpg"]
    for name in [*odd, "kitten.jpg", "a/b.jpg"]:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"photo")
    assert listed("\n".join(odd).encode()) == odd


def test_a_cell_that_is_half_a_name_names_no_folder():
    assert listed(b"photos, and more.jpg\n") == ["photos, and more.jpg"]


def test_blank_lines_and_comments_are_left_out():
    assert listed(b"\n \n# a comment\r\n\r\n") == []
    assert listed(b"") == []
    assert listed(b"#1.jpg\n") == ["#1.jpg"]  # no comment, and a photo is missing


@pytest.mark.parametrize("entry", ["/", "..", "../..", "photos/../..", "link", '"/"'])
def test_a_folder_above_the_working_folder_has_to_be_allowed(entry):
    Path("link").symlink_to("..")
    for data in (f"{PATHS[0]}\n{entry}\n", f"{PATHS[0]}\0{entry}\0"):
        if entry == '"/"' and "\0" in data:
            continue  # there, nothing is quoted
        with pytest.raises(ValueError, match="entry 2 names the folder .* --yes"):
            listed(data.encode())
        assert len(listed(data.encode(), trust_list=True)) == 2
    with pytest.raises(ValueError, match="--yes"):
        find_photos(files_from="list")  # at once, before the first photo


def test_the_working_folder_and_those_beside_it_are_allowed():
    Path("../beside").mkdir()
    assert listed(b".\nphotos\n../beside\n") == [".", "photos", "../beside"]


def test_a_list_has_no_wildcards():
    assert listed(b"photos/**/*.jpg\n/*\n") == ["photos/**/*.jpg", "/*"]
    found = list(find_photos(files_from="list"))
    assert [photo.error.kind for photo in found] == ["missing", "missing"]


def test_what_is_no_list_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="entry 1 has more than 32,768 characters"):
        listed(b"x" * 100_000)
    monkeypatch.setattr(path_list, "MAX_LIST_BYTES", 10_000_000)
    with pytest.raises(ValueError, match="The list has more than 10,000,000 bytes"):
        list(read_path_list("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        read_path_list("gone.txt")


def test_standard_input(monkeypatch):
    Path("list").write_bytes("\ufeffphotos\r\n".encode("utf-16-le"))
    with open("list") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert list(read_path_list("-")) == ["photos"]

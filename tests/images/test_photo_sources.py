"""What is captioned: files, folders, globs, lists, archives, and what lies in wait."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from captioner.images import folder_walk, tar_archive, zip_archive
from captioner.images.image_files import ImageError
from captioner.images.photo_sources import count_photos, find_photos


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(*names, content=None):
    for name in names:
        path = Path(os.fsdecode(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name) if content is None else content)


def names(*arguments, **keywords):
    return [photo.name for photo in find_photos(*arguments, **keywords)]


def test_a_folder_is_searched_to_the_bottom_in_order():
    make("a/2.JPG", "a/1.png", "a/b/3.webp", "a/a.jpg/0.avif", "a/notes.txt")
    make("a/.hidden.jpg", "a/.cache/4.jpg", "a/B/5.heic", "a/archive.zip")
    expected = "a/1.png a/2.JPG a/B/5.heic a/a.jpg/0.avif a/b/3.webp".split()
    assert names("a") == names(["a/"]) == names(["./a"]) == expected
    assert count_photos(["a"]) == 5
    relative = [photo.relative for photo in find_photos("a")]
    assert relative == [name.removeprefix("a/") for name in expected]
    os.chdir("a")
    assert names("") == names(".") == relative


def test_names_may_be_anything():
    odd = ["two\nlines.jpg", "ünïcödé 🐈.jpg", os.fsdecode(b"\xff.jpg"), "-o.jpg"]
    make(*(f"a/{name}" for name in odd))
    photos = list(find_photos("a"))
    assert sorted(photo.relative for photo in photos) == sorted(odd)
    assert {photo.read() for photo in photos} == {
        os.fsencode(f"a/{name}") for name in odd
    }


def test_links_never_lead_round_in_circles():
    make("a/b/1.jpg", "c/2.jpg")
    Path("a/b/up").symlink_to("..")
    Path("a/other").symlink_to("../c")
    Path("a/loop.jpg").symlink_to("loop.jpg")
    Path("a/gone.jpg").symlink_to("nowhere.jpg")
    Path("a/there.jpg").symlink_to("../c/2.jpg")
    found = list(find_photos("a"))
    expected = ["a/gone.jpg", "a/loop.jpg", "a/there.jpg", "a/b/1.jpg"]
    assert [photo.name for photo in found] == expected
    assert found[2].read() == b"c/2.jpg"
    for photo, kind in ((found[0], "missing"), (found[1], "unreadable")):
        with pytest.raises(ImageError) as caught:
            photo.read()
        assert caught.value.kind == kind


def test_what_is_no_file_is_an_error_and_never_waited_for():
    Path("a").mkdir()
    os.mkfifo("a/fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a/socket.jpg")
        for photo in find_photos("a"):
            with pytest.raises(ImageError, match="not a file") as caught:
                photo.read()
            assert caught.value.kind == "unreadable"


def test_two_spellings_are_one_photo():
    make("a/1.jpg", "a/b/2.jpg")
    Path("link").symlink_to("a")
    given = ["a/1.jpg", "a", "./a/1.jpg", "a/b/../1.jpg", "link", Path("a").absolute()]
    assert names(given) == ["a/1.jpg", "a/b/2.jpg"]
    make("c/1.jpg")  # the same name is another photo
    assert names(["a", "c"]) == ["a/1.jpg", "a/b/2.jpg", "c/1.jpg"]


def test_globs():
    make("a/1.jpg", "a/b/2.jpg", "a/b/3.png", "a/[x].jpg")
    assert names("a/**/*.jpg") == ["a/1.jpg", "a/[x].jpg", "a/b/2.jpg"]
    assert names(["a/?", "a/*.jpg"]) == [
        "a/b/2.jpg",
        "a/b/3.png",
        "a/1.jpg",
        "a/[x].jpg",
    ]
    assert names("a/[x].jpg") == ["a/[x].jpg"]  # a file of that name comes first
    with pytest.raises(ValueError, match="Nothing matches a/\\*.gif"):
        names("a/*.gif")
    with pytest.raises(ValueError, match="No such file or folder: b"):
        names(["a", "b"])


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_lists(separator, monkeypatch):
    odd = "a/two\nlines.jpg" if separator == "\0" else "a/ünï.jpg"
    make("a/1.jpg", odd, "c/3.jpg")
    lines = [odd, "", "gone.jpg", "c", "a/1.jpg", odd]
    for end in ("", separator):
        Path("list").write_bytes(os.fsencode(separator.join(lines) + end))
        expected = [odd, "gone.jpg", "c/3.jpg", "a/1.jpg"]
        assert names(files_from="list") == expected
        assert names("c/3.jpg", files_from="list") == [
            "c/3.jpg",
            odd,
            "gone.jpg",
            "a/1.jpg",
        ]
        with open("list") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert names(files_from="-") == expected
    missing = list(find_photos(files_from="list"))[1]
    assert missing.error.kind == "missing"


def test_a_list_that_windows_wrote():
    make("1.jpg", "odd.jpg\r")
    Path("list").write_bytes(b"1.jpg\r\nodd.jpg\r\n")
    assert names(files_from="list") == ["1.jpg", "odd.jpg\r"]


def test_two_files_of_one_name_in_an_archive_are_two_rows():
    with tarfile.open("x.tar", "w") as archive:
        for data in (b"one", b"two", b"three"):
            info = tarfile.TarInfo("1.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    first, *others = find_photos("x.tar")
    assert first.read() == b"one"
    assert [each.name for each in others] == ["x.tar/1.jpg (2)", "x.tar/1.jpg (3)"]
    assert {each.error.kind for each in others} == {"clash"}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_tar(path, members):
    mode = "w:" + path.partition(".tar")[2].strip(".")
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("path", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_archives_are_read_without_being_unpacked(path):
    members = {
        "b/2.jpg": b"two",
        "1.jpg": b"one",
        "notes.txt": b"",
        "../3.jpg": b"three",
        "/etc/4.jpg": b"four",
        ".hidden.jpg": b"",
        "__MACOSX/._1.jpg": b"",
        "ünï\ncode.jpg": b"five",
    }
    (write_zip if path == "x.zip" else write_tar)(path, members)
    photos = list(find_photos(path))
    assert [photo.name for photo in photos] == [
        f"{path}/{name}"
        for name in ("b/2.jpg", "1.jpg", "../3.jpg", "/etc/4.jpg", "ünï\ncode.jpg")
    ]
    assert photos[0].relative == "x/b/2.jpg"
    assert [photo.error and photo.error.kind for photo in photos] == [
        None,
        None,
        "unsafe",
        "unsafe",
        None,
    ]
    assert [p.read() for p in photos if not p.error] == [b"two", b"one", b"five"]
    assert sorted(os.listdir()) == [path]
    assert count_photos([path]) is None


def test_bad_archives_are_errors(monkeypatch):
    make("no.zip", "no.tar", "no.tgz", content=b"this is no archive")
    write_zip("cut.zip", {"1.jpg": os.urandom(5000), "2.jpg": b"2"})
    write_tar("cut.tar", {"1.jpg": os.urandom(5000), "2.jpg": os.urandom(5000)})
    write_tar("cut.tar.gz", {"1.jpg": os.urandom(5000), "2.jpg": os.urandom(5000)})
    Path("cut.zip").write_bytes(Path("cut.zip").read_bytes()[:-30])
    for path in ("cut.tar", "cut.tar.gz"):
        Path(path).write_bytes(Path(path).read_bytes()[:7000])
    os.mkfifo("pipe.zip")
    for path in ("no.zip", "no.tar", "no.tgz", "cut.zip", "pipe.zip"):
        (photo,) = find_photos(path)
        assert photo.error.kind == "unreadable" and photo.name == path
    for path in ("cut.tar", "cut.tar.gz"):
        first, *rest = find_photos(path)
        assert len(first.read()) == 5000
        for photo in rest:
            with pytest.raises(ImageError, match="cannot be read"):
                photo.read()
        assert rest

    damaged = bytearray(os.urandom(5000))
    write_zip("bad.zip", {"1.jpg": bytes(damaged)})
    data = bytearray(Path("bad.zip").read_bytes())
    data[2000] ^= 1
    Path("bad.zip").write_bytes(data)
    (photo,) = find_photos("bad.zip")
    with pytest.raises(ImageError, match="cannot be read"):
        photo.read()


def test_a_bomb_in_an_archive_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(zip_archive, "MAX_MEMBER_BYTES", 10_000)
    monkeypatch.setattr(tar_archive, "MAX_INFLATED_MEMBER_BYTES", 10_000)
    bomb = {"bomb.jpg": bytes(60_000_000), "1.jpg": b"one"}
    write_zip("x.zip", bomb)
    write_tar("x.tar.gz", bomb)
    for path in ("x.zip", "x.tar.gz"):
        tracemalloc.start()
        bad, good = find_photos(path)
        assert bad.error.kind == "too_large" and good.read() == b"one"
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
        tracemalloc.stop()


def test_links_in_an_archive_are_errors():
    with tarfile.open("x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [photo.error.kind for photo in find_photos("x.tar")] == ["unreadable"] * 3


def test_a_folder_that_cannot_be_read_is_an_error(monkeypatch):
    make("a/1.jpg", "a/b/2.jpg", "a/c/3.jpg")
    scandir = os.scandir

    def forbidden(path):
        if path == "a/b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    found = list(find_photos("a"))
    assert [photo.name for photo in found] == ["a/1.jpg", "a/b", "a/c/3.jpg"]
    assert found[1].error.reason == "cannot be read: Permission denied"


def test_deep_folders():
    deep = "/".join(["d"] * 1500)
    subprocess.run(["mkdir", "-p", deep], check=True)
    make(f"{deep}/1.jpg")
    try:
        assert names("d") == [f"{deep}/1.jpg"]
    finally:  # what clears up after tests is not made for it
        subprocess.run(["rm", "-rf", "d"], check=True)


def test_many_names_are_sorted_on_the_disk(monkeypatch):
    expected = sorted(f"a/{number * 7919 % 2000}\nü.jpg" for number in range(2000))
    make(*expected, "a/b/1.jpg", "a/c/2.jpg")
    monkeypatch.setattr(folder_walk, "NAMES_IN_MEMORY", 99)
    assert names("a") == [*expected, "a/b/1.jpg", "a/c/2.jpg"]

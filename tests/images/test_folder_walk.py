"""The way through folders, patterns, and what is counted on the way."""

import os
from pathlib import Path

import pytest

from captioner.images import folder_walk
from captioner.images.folder_walk import scan_folder, system_folder, walk_folder
from captioner.images.left_aside import MAX_SUFFIXES, LeftAside
from captioner.images.photo_sources import count_photos, find_photos


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"photo")


def names(path):
    return [photo.name for photo in find_photos(path)]


def test_each_folder_is_visited_once_in_order():
    make("a/2.txt", "a/1.jpg", "a/b/3.txt", "a/c/d/4.txt", "a/.e/5.txt")
    Path("a/c/up").symlink_to("..")
    visits = [
        (visit.folder, list(visit.names))
        for visit in walk_folder("a", lambda name: name.endswith(".txt"))
    ]
    assert visits == [
        ("a", ["2.txt"]),
        ("a/b", ["3.txt"]),
        ("a/c", []),
        ("a/c/d", ["4.txt"]),
    ]
    (visit,) = walk_folder("nowhere", str)
    assert isinstance(visit.error, FileNotFoundError)


def test_folders_of_the_system_are_never_entered():
    names = {name for name, kind in scan_folder("/") if kind == "folder"}
    assert names and not names & {"proc", "sys", "dev"}
    Path("link").symlink_to("/proc/self")
    assert system_folder("link/fd") == system_folder("/proc") == "/proc"
    assert system_folder("/devices") is system_folder("/dev/shm/photos") is None
    for path in ("/proc/self/cmdline", "/dev", "link", "/sys/../dev/zero"):
        with pytest.raises(ValueError, match="a folder of the system"):
            next(find_photos(path))


def test_links_into_the_system_are_rows():
    make("a/1.jpg")
    Path("a/zero.jpg").symlink_to("/dev/zero")
    Path("a/memory.jpg").symlink_to("/proc/self/mem")
    Path("list").write_text("a\n/proc/self/environ\n")
    found = list(find_photos(files_from="list"))
    assert [photo.error and photo.error.kind for photo in found] == [
        None,
        "unsafe",
        "unsafe",
        "unsafe",
    ]
    assert found[1].error.reason == (
        "it is in /proc, a folder of the system, which is not read"
    )


def test_patterns_follow_no_links_round_in_circles():
    make("a/1.jpg", "a/b/2.jpg", "a/b/c/3.jpg", "a/.d/4.jpg", "b/5.jpg")
    for link in ("a/up", "a/b/up", "a/b/top"):  # two of them make 2^40 paths
        Path(link).symlink_to("..")
    assert names("a/**/*.jpg") == ["a/1.jpg", "a/b/2.jpg", "a/b/c/3.jpg"]
    assert names("**/b/*.jpg") == ["a/b/2.jpg", "b/5.jpg"]
    assert names("a/**/c/**/*.jpg") == ["a/b/c/3.jpg"]
    assert names("a/**") == names("a")
    assert names("?/**/[0-3].jpg") == ["a/1.jpg", "a/b/2.jpg", "a/b/c/3.jpg"]
    here = os.getcwd()
    assert names(f"{here}/**/5.jpg") == [f"{here}/b/5.jpg"]


def test_a_pattern_reports_folders_that_cannot_be_read(monkeypatch):
    make("a/1.jpg", "a/b/2.jpg")
    scandir = os.scandir

    def forbidden(path):
        if path == "a/b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    found = {photo.name: photo.error for photo in find_photos("a/**/*.jpg")}
    assert found.keys() == {"a/1.jpg", "a/b"} and found["a/b"].kind == "unreadable"
    assert count_photos(["a"]) == 1


def test_files_that_are_no_photos_are_counted():
    make("a/1.jpg", "a/1.txt", "a/1.CR2", "a/b/2.cr2", "a/b/3.mp4", "a/README")
    make("a/run.json", "a/out.csv", "a/.hidden.mp4", "a/1.xmp", "a/.cache/x.mp4")
    make("a/4.jfif", "a/5.jfi", "a/6.pjpeg", "a/7.mpo", "a/1.tags")
    Path("a/link").symlink_to("b")
    left_aside = LeftAside([".tags"])
    found = [photo.name for photo in find_photos("a", left_aside=left_aside)]
    assert found == ["a/1.jpg", "a/4.jfif", "a/5.jfi", "a/6.pjpeg", "a/7.mpo"]
    assert str(left_aside) == ("2 .cr2, 1 .mp4, 1 linked folder(s), 1 without a suffix")


def test_names_of_others_fill_no_memory():
    left_aside = LeftAside()
    for number in range(10_000):
        left_aside.add(f"a.{number}")
        left_aside.add("b." + "x" * number)
        left_aside.add("c.\x1b[31m")
    assert len(left_aside.counts()) <= MAX_SUFFIXES + 1
    assert sum(left_aside.counts().values()) == 30_000
    assert str(left_aside).isprintable()


def test_the_names_in_a_folder_are_sorted_on_the_disk(monkeypatch):
    expected = sorted(f"{number * 7919 % 500}\nü" for number in range(500))
    make(*(f"a/{name}" for name in expected), *(f"a/d{n:03}/x" for n in range(500)))
    monkeypatch.setattr(folder_walk, "NAMES_IN_MEMORY", 99)
    first, *others = walk_folder("a", lambda name: True)
    # The files of the first visit are those that were read before the next visit.
    assert [visit.folder for visit in others] == [f"a/d{n:03}" for n in range(500)]
    assert list(next(iter(walk_folder("a", lambda name: True))).names) == expected

"""Files are there whole or not at all, and never written through a link."""

import os

import pytest

from captioner import files


def full_disk(path):
    """Stands in for `_create`: the file is there, and takes no byte."""
    path.touch()
    return os.open("/dev/full", os.O_WRONLY)


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "captions.txt"
    with files.atomic_write(path, "w", encoding="utf-8", sync=True) as file:
        file.write("a dog ünd")
        assert [each.suffix for each in tmp_path.iterdir()] == [".part"]
    assert path.read_text("utf-8") == "a dog ünd"
    with files.atomic_write(path) as file:
        file.write(b"another")
    assert path.read_bytes() == b"another" and os.listdir(tmp_path) == [path.name]
    with pytest.raises(KeyboardInterrupt):
        with files.atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    assert path.read_bytes() == b"another" and os.listdir(tmp_path) == [path.name]


def test_a_file_that_appeared_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "captions.txt"

    def write():
        with files.atomic_write(path, replace=False) as file:
            file.write(b"ours")
            path.write_text("theirs")

    def no_links(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(FileExistsError) as raised:
        write()
    assert raised.value.filename == str(path)
    monkeypatch.setattr(os, "link", no_links)  # as on exFAT
    with pytest.raises(FileExistsError):
        write()
    assert path.read_text() == "theirs" and os.listdir(tmp_path) == [path.name]
    path.unlink()
    with files.atomic_write(path, replace=False) as file:
        file.write(b"ours")
    assert path.read_text() == "ours" and os.listdir(tmp_path) == [path.name]


def test_nothing_is_written_through_a_link(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    # The file itself may be a link, which is replaced.
    (tmp_path / "captions.txt").symlink_to(theirs)
    with files.atomic_write(tmp_path / "captions.txt") as file:
        file.write(b"ours")
    assert not (tmp_path / "captions.txt").is_symlink()
    # A link that waits under the name of the unfinished file is not followed.
    for planted in (theirs, tmp_path / "nowhere"):
        part = tmp_path / ".guessed.part"
        part.symlink_to(planted)
        with pytest.raises(FileExistsError):
            with files.atomic_write(tmp_path / "a.txt", token="guessed"):
                pass
        assert part.is_symlink()
        with pytest.raises(OSError, match="symbolic links"):
            open(part, "ab", opener=files.open_without_links)
        part.unlink()
    assert theirs.read_text() == "precious" and not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_names_the_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "_create", full_disk)
    with pytest.raises(OSError) as raised:
        with files.atomic_write(tmp_path / "captions.txt", "w") as file:
            file.write("x" * size)
    assert raised.value.filename == str(tmp_path / "captions.txt")
    assert raised.value.strerror == "No space left on device"
    assert os.listdir(tmp_path) == []


def test_the_mode_is_that_of_the_user(tmp_path):
    mask = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a.json", {"café": "\udcff"})
    finally:
        os.umask(mask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "café": "\\udcff"\n}\n'


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "preset"
    for text in ("one", "two"):
        with files.atomic_folder(path) as folder:
            (folder / "file").write_text(text)
            assert not path.exists() or (path / "file").read_text() != text
        assert (path / "file").read_text() == text
    with pytest.raises(KeyboardInterrupt):
        with files.atomic_folder(path) as folder:
            (folder / "file").write_text("half")
            raise KeyboardInterrupt
    assert (path / "file").read_text() == "two" and os.listdir(path.parent) == [
        "preset"
    ]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_a_byte_order_mark_tells_the_encoding(encoding):
    text = "a dög"
    mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
    data = (mark + text).encode(encoding)
    assert data.decode(files.text_encoding(data[:4])) == text

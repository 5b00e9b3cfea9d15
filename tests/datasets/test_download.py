"""Downloads from a file server on this machine."""

import errno
import hashlib
import http.server
import importlib
import io
import os
import random
import re
import stat
import threading
import zipfile

import pytest

from captioner.datasets import DownloadError, download, load_dataset

# The package shows the function under this name, not its module.
module = importlib.import_module("captioner.datasets.download")


def make_zip(members):
    """Bytes of a zip file of (name or ZipInfo, text)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


TEXT = make_zip(
    [
        (
            "Flickr8k.token.txt",
            "0.jpg#0\tA dog .\n1.jpg#0\tA cat .\n2.jpg#0\tA cow .\n",
        ),
        ("Flickr_8k.trainImages.txt", "0.jpg\n"),
        ("Flickr_8k.devImages.txt", "1.jpg\n"),
        ("Flickr_8k.testImages.txt", "2.jpg\n"),
        ("__MACOSX/._Flickr8k.token.txt", "rubbish"),
    ]
)
NOISE = random.Random(0).randbytes(5_000_000)
PHOTOS = make_zip(
    [(f"Flicker8k_Dataset/{i}.jpg", NOISE if i == 0 else "photo") for i in range(3)]
)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `cut` breaks a connection off after so many bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.ranges = True
        self.etags = True
        self.cut = {}
        self.redirects = {}
        self.lengths = True
        self.log = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/files/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/files/")
        if name in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[name])
            self.end_headers()
            return
        asked = self.headers.get("Range")
        self.server.log.append((name, asked))
        data = self.server.files.get(name)
        if data is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked else 0
        if not self.server.ranges or self.headers.get("If-Range", etag) != etag:
            start = 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(data)-1}/{len(data)}"
            )
        if self.server.etags:
            self.send_header("ETag", etag)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: self.server.cut.pop(name, None)])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.files = {"Flickr8k_text.zip": TEXT, "Flickr8k_Dataset.zip": PHOTOS}
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def sources(monkeypatch):
    """Flickr8k as it is declared, but for the checksums of our small archives."""
    text, photos = module.SOURCES["flickr8k"].archives

    def declare(text_bytes=TEXT, photo_bytes=PHOTOS):
        archives = [
            module.Archive(
                archive.file_name,
                hashlib.md5(data).hexdigest(),
                archive.unpacks,
                max_bytes=12_000_000,
                max_unpacked_bytes=10_000_000,
            )
            for archive, data in ((text, text_bytes), (photos, photo_bytes))
        ]
        source = module.Source("http://nowhere.invalid/", tuple(archives), "for tests")
        monkeypatch.setitem(module.SOURCES, "flickr8k", source)

    declare()
    return declare


def assert_complete(folder):
    dataset = load_dataset(f"flickr8k:{folder}")
    assert dataset.summary().images == {"train": 1, "dev": 1, "test": 1}
    assert dataset.summary().left_out == ()
    assert (folder / "Flicker8k_Dataset" / "0.jpg").read_bytes() == NOISE
    assert sorted(os.listdir(folder)) == [
        "Flicker8k_Dataset",
        "Flickr8k.token.txt",
        "Flickr_8k.devImages.txt",
        "Flickr_8k.testImages.txt",
        "Flickr_8k.trainImages.txt",
    ]


def test_download_and_again(server, tmp_path, capfd):
    folder = tmp_path / "new" / "flickr8k"
    assert download("flickr8k", folder, server.url) == str(folder)
    assert_complete(folder)
    out, err = capfd.readouterr()
    assert out == "" and "\r" not in err
    assert "Flickr8k_Dataset.zip: 5.0 MB of 5.0 MB, complete" in err
    assert len(server.log) == 2
    download("flickr8k", folder, server.url)
    assert len(server.log) == 2, "nothing is fetched twice"
    assert "already in" in capfd.readouterr().err


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_connection_is_resumed(server, tmp_path, etags):
    server.etags = etags
    server.cut["Flickr8k_Dataset.zip"] = 3_000_000
    with pytest.raises(DownloadError, match="broke off.*Run the command again"):
        download("flickr8k", tmp_path, server.url)
    part = tmp_path / "Flickr8k_Dataset.zip.part"
    assert part.stat().st_size == 3_000_000
    assert not (tmp_path / "Flicker8k_Dataset").exists()
    download("flickr8k", tmp_path, server.url)
    assert server.log[-1] == ("Flickr8k_Dataset.zip", "bytes=3000000-")
    assert_complete(tmp_path)


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    server.cut["Flickr8k_Dataset.zip"] = 3_000_000
    with pytest.raises(DownloadError, match="broke off"):
        download("flickr8k", tmp_path, server.url)
    download("flickr8k", tmp_path, server.url)
    assert_complete(tmp_path)


def test_a_file_that_changed_meanwhile_starts_over(server, tmp_path):
    server.files["Flickr8k_Dataset.zip"] = PHOTOS[::-1]
    server.cut["Flickr8k_Dataset.zip"] = 3_000_000
    with pytest.raises(DownloadError, match="broke off"):
        download("flickr8k", tmp_path, server.url)
    server.files["Flickr8k_Dataset.zip"] = PHOTOS
    download("flickr8k", tmp_path, server.url)
    assert_complete(tmp_path)
    assert server.log.count(("Flickr8k_Dataset.zip", None)) == 1


@pytest.mark.parametrize("size", [1_000_000, len(PHOTOS), len(PHOTOS) + 5])
def test_a_part_that_does_not_fit_starts_over(server, tmp_path, size):
    (tmp_path / "Flickr8k_Dataset.zip.part").write_bytes(bytes(size))
    download("flickr8k", tmp_path, server.url)
    assert_complete(tmp_path)
    assert [asked for name, asked in server.log if "Dataset" in name] == [
        f"bytes={size}-",
        None,
    ]


def test_a_whole_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "Flickr8k_Dataset.zip.part").write_bytes(PHOTOS)
    download("flickr8k", tmp_path, server.url)
    assert_complete(tmp_path)
    assert [asked for name, asked in server.log if "Dataset" in name] == [
        f"bytes={len(PHOTOS)}-"
    ]


def test_wrong_checksum(server, tmp_path):
    server.files["Flickr8k_text.zip"] = TEXT + b"?"
    with pytest.raises(DownloadError, match="text.zip is not the expected file: .*MD5"):
        download("flickr8k", tmp_path, server.url)
    assert os.listdir(tmp_path) == []
    (tmp_path / "Flickr8k_text.zip").write_bytes(b"put here by hand")
    with pytest.raises(DownloadError, match="is not the expected file. Remove it"):
        download("flickr8k", tmp_path, server.url)


def test_network_errors_are_one_line(server, tmp_path):
    del server.files["Flickr8k_text.zip"]
    with pytest.raises(
        DownloadError, match=r"Flickr8k_text.zip: HTTP 404 Not Found\.$"
    ):
        download("flickr8k", tmp_path, server.url)
    with pytest.raises(DownloadError, match="cannot be reached: .*refused"):
        download("flickr8k", tmp_path, "http://127.0.0.1:9/")
    with pytest.raises(ValueError, match="base_url='file:///etc'"):
        download("flickr8k", tmp_path, "file:///etc")
    with pytest.raises(ValueError, match="name='flickr30k'"):
        download("flickr30k", tmp_path)


@pytest.mark.parametrize("lengths", [True, False])
def test_no_more_is_downloaded_than_expected(server, tmp_path, lengths):
    server.lengths = lengths
    server.files["Flickr8k_Dataset.zip"] = bytes(13_000_000)
    with pytest.raises(DownloadError, match="larger than the 12.0 MB .*: refused"):
        download("flickr8k", tmp_path, server.url)
    assert all(path.stat().st_size <= 12_000_000 for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "target",
    ["ftp://127.0.0.1/a.zip", "file:///etc/passwd", "data:,text", "//\x1b[31m"],
)
def test_redirections_lead_to_http_only(server, tmp_path, target):
    server.redirects["Flickr8k_text.zip"] = target
    with pytest.raises(DownloadError) as error:
        download("flickr8k", tmp_path, server.url)
    assert "\x1b" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert re.search("redirect", str(error.value), re.IGNORECASE)


def test_a_redirection_to_http_is_followed_but_not_from_https(server, tmp_path):
    server.redirects["Flickr8k_text.zip"] = server.url + "moved.zip"
    server.files["moved.zip"] = TEXT
    download("flickr8k", tmp_path, server.url)
    assert_complete(tmp_path)
    request = module.urllib.request.Request("https://example.com/a.zip")
    with pytest.raises(DownloadError, match="redirects to http://example.com/a.zip"):
        module._SafeRedirects().redirect_request(
            request, None, 302, "", {}, "http://example.com/a.zip"
        )


def test_full_disk_and_unwritable_folder(server, tmp_path, monkeypatch):
    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(OSError) as caught:
            full.write(b"0")
    assert caught.value.errno == errno.ENOSPC

    def open_full(path, mode="r", **options):
        path = "/dev/full" if str(path).endswith(".part") and "b" in mode else path
        return open(path, mode, **options)

    monkeypatch.setattr(module, "open", open_full, raising=False)
    with pytest.raises(DownloadError, match=f"The disk of {tmp_path} is full"):
        download("flickr8k", tmp_path, server.url)
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="Cannot write .*file.*: "):
        download("flickr8k", tmp_path / "file" / "folder", server.url)


def symbolic_link():
    link = zipfile.ZipInfo("Flicker8k_Dataset/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize(
    "member", ["../escaped.txt", "/escaped.txt", "a\\..\\..\\b", "C:x", symbolic_link()]
)
def test_unsafe_members_are_refused(server, sources, tmp_path, member):
    data = make_zip([("Flicker8k_Dataset/0.jpg", "photo"), (member, "/etc/passwd")])
    sources(photo_bytes=data)
    server.files["Flickr8k_Dataset.zip"] = data
    with pytest.raises(DownloadError, match="unsafe member"):
        download("flickr8k", tmp_path / "flickr8k", server.url)
    assert os.listdir(tmp_path) == ["flickr8k"]
    assert not (tmp_path / "flickr8k" / "Flicker8k_Dataset").exists()


def test_bombs_and_bad_zip_files_are_refused(server, sources, tmp_path):
    for data, message in (
        (make_zip([("Flicker8k_Dataset/0.jpg", bytes(11_000_000))]), "would unpack to"),
        (make_zip([("photos/0.jpg", "photo")]), "does not contain Flicker8k_Dataset"),
        (b"no zip file at all", "not a good zip file"),
    ):
        folder = tmp_path / message.replace(" ", "_")
        sources(photo_bytes=data)
        server.files["Flickr8k_Dataset.zip"] = data
        with pytest.raises(DownloadError, match=message):
            download("flickr8k", folder, server.url)
        assert not (folder / "Flicker8k_Dataset").exists()
        assert not [name for name in os.listdir(folder) if "unpack" in name]


def test_the_declared_source_is_the_well_known_one(monkeypatch):
    monkeypatch.undo()
    source = module.SOURCES["flickr8k"]
    assert source.base_url.startswith("https://github.com/jbrownlee/Datasets/")
    assert {a.file_name: a.md5 for a in source.archives} == {
        "Flickr8k_text.zip": "bf6c1abcb8e4a833b7f922104de18627",
        "Flickr8k_Dataset.zip": "f18a1e2920de5bd84dae7cf08ec78978",
    }

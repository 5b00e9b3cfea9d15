"""Downloads the public archives of a dataset, checks them and unpacks them safely."""

import dataclasses
import errno
import hashlib
import http.client
import os
import shutil
import ssl
import stat
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib

from tqdm import tqdm

from captioner.files import atomic_write, open_without_links
from captioner.terminal import printable, printable_lines

_CHUNK_SIZE = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without a byte
_LINE_INTERVAL = 10  # seconds between two lines of progress off a terminal
_BROKEN_OFF = (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException)


class DownloadError(OSError):
    """A download that cannot go on; its text is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """One zip file of a dataset.

    Args:
        file_name: str. Its name at the source.
        md5: str. Hex digest of the whole file.
        unpacks: tuple of str. Top-level names in it that make it complete.
        max_bytes: int. No more is downloaded.
        max_unpacked_bytes: int. A zip file that claims more is refused.
    """

    file_name: str
    md5: str
    unpacks: tuple[str, ...]
    max_bytes: int
    max_unpacked_bytes: int


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a dataset comes from, and on which terms."""

    base_url: str
    archives: tuple[Archive, ...]
    terms: str


# No publisher of Flickr8k states a checksum. These MD5 sums are those that two
# independent projects enforce for the same files: torchvision for R
# (mlverse/torchvision) and pytorch-cpp (prabhuomkar/pytorch-cpp). MD5 protects
# from damage, not from an attacker who can forge a file: HTTPS does that.
SOURCES = {
    "flickr8k": Source(
        base_url="https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/",
        archives=(
            Archive(
                "Flickr8k_text.zip",
                md5="bf6c1abcb8e4a833b7f922104de18627",
                unpacks=(
                    "Flickr8k.token.txt",
                    "Flickr_8k.trainImages.txt",
                    "Flickr_8k.devImages.txt",
                    "Flickr_8k.testImages.txt",
                ),
                max_bytes=20 << 20,
                max_unpacked_bytes=100 << 20,
            ),
            Archive(
                "Flickr8k_Dataset.zip",
                md5="f18a1e2920de5bd84dae7cf08ec78978",
                unpacks=("Flicker8k_Dataset",),
                max_bytes=2 << 30,
                max_unpacked_bytes=4 << 30,
            ),
        ),
        terms="for research and education only; do not redistribute",
    ),
}


def download(name, output_dir, base_url=None):
    """Downloads a dataset into a folder and unpacks it there.

    An interrupted download goes on where it was (`*.part` files and HTTP
    ranges), what is complete is not fetched again, and nothing appears under
    its final name before it is whole and its checksum is right. Progress goes
    to the standard error: a bar on a terminal, plain lines otherwise. The zip
    files are removed once they are unpacked.

    Args:
        name: str. A key of `SOURCES`: `"flickr8k"`.
        output_dir: str or path. Created if need be.
        base_url: str or None. An HTTP(S) folder with the same archives.

    Returns:
        str. `output_dir`, to be read as `load_dataset(f"{name}:{output_dir}")`.

    Raises:
        ValueError: If the name is not known or the URL is not HTTP(S).
        DownloadError: If the network, the disk or a checksum fails, or the server
            sends too much or redirects to another protocol. What was
            fetched is kept where it can still be of use.

    Example:

    ```python
    captioner.datasets.download("flickr8k", "flickr8k")
    ```
    """
    if name not in SOURCES:
        raise ValueError(
            f"These datasets can be downloaded: {', '.join(sorted(SOURCES))}. "
            f"Received: name={name!r}"
        )
    source = SOURCES[name]
    base_url = source.base_url if base_url is None else base_url
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"A URL must be HTTP(S). Received: base_url={base_url!r}")
    output_dir = os.fspath(output_dir)
    _say(f"{name}: {source.terms}.")
    try:
        os.makedirs(output_dir, exist_ok=True)
        for archive in source.archives:
            targets = [os.path.join(output_dir, entry) for entry in archive.unpacks]
            if all(map(os.path.exists, targets)):
                _say(f"{archive.file_name}: already in {output_dir}.")
                continue
            path = os.path.join(output_dir, archive.file_name)
            if not os.path.exists(path):
                _fetch(base_url.rstrip("/") + "/" + archive.file_name, path, archive)
            elif _md5(path) != archive.md5:
                raise DownloadError(
                    f"{path} is not the expected file. Remove it and run the command "
                    "again."
                )
            _unpack(path, output_dir, archive)
            os.remove(path)
    except DownloadError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"The disk of {output_dir} is full. "
            message += "Make room and run the command again."
        else:
            where = error.filename or output_dir
            message = f"Cannot write {where}: {error.strerror or error}."
        raise DownloadError(message) from error
    return output_dir


def _fetch(url, path, archive):
    """Downloads `url` to `path`, whole and checked, or raises."""
    part = path + ".part"
    resumed = _receive(url, part, archive.max_bytes)
    if _md5(part) != archive.md5 and resumed:
        # The first half may be of another file than the second: once afresh.
        _say(f"{archive.file_name}: the parts do not fit together, starting over.")
        os.remove(part)
        _receive(url, part, archive.max_bytes)
    received = _md5(part)
    _remove_if_there(_validator_path(part))
    if received != archive.md5:
        os.remove(part)
        raise DownloadError(
            f"{url} is not the expected file: its MD5 is {received}, not {archive.md5}."
        )
    os.replace(part, path)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to another protocol, nor from HTTPS to HTTP."""

    def redirect_request(self, request, file, code, message, headers, new_url):
        old, new = (
            urllib.parse.urlsplit(u).scheme for u in (request.full_url, new_url)
        )
        if new != "https" and (new, old) != ("http", "http"):
            raise DownloadError(
                f"{request.full_url} redirects to {printable(new_url)}: refused."
            )
        return super().redirect_request(request, file, code, message, headers, new_url)


def _opener():
    """Opens HTTP(S) addresses only; `urlopen` also opens ftp:, file: and data: ones."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _SafeRedirects,
    ):
        opener.add_handler(handler())
    return opener


def _receive(url, part, max_bytes):
    """Appends what is missing to `part`; returns whether it was resumed."""
    start = os.path.getsize(part) if os.path.exists(part) else 0
    request = urllib.request.Request(url, headers={"User-Agent": "captioner"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        validator = _read_validator(part)
        if validator:
            # A server with a changed file then sends all of the new one.
            request.add_header("If-Range", validator)
    try:
        with _opener().open(request, timeout=_TIMEOUT) as response:
            resumed = bool(start) and response.status == http.client.PARTIAL_CONTENT
            if resumed and not _range_starts_at(response, start):
                raise DownloadError(f"{url}: the server sent the wrong range.")
            if not resumed:
                start = 0
                _write_validator(part, response)
            _copy(response, part, start, url, max_bytes)
            return resumed
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing is missing, or the file is not what it was: the checksum
            # tells these apart.
            return True
        # A server may send what moves the cursor of a terminal.
        reason = printable(str(error.reason))
        raise DownloadError(f"{url}: HTTP {error.code} {reason}.") from error
    except urllib.error.URLError as error:
        reason = printable(str(error.reason))
        raise DownloadError(f"{url} cannot be reached: {reason}.") from error
    except ValueError as error:  # of urllib, about the target of a redirection
        reason = printable(str(error))
        raise DownloadError(f"{url} redirects to a bad address: {reason}.") from error
    except _BROKEN_OFF as error:
        reason = printable(str(error) or type(error).__name__)
        raise DownloadError(
            f"{url}: the connection broke off ({reason}). "
            "Run the command again to continue from there."
        ) from error


def _copy(response, part, start, url, max_bytes):
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isascii() and length.isdecimal() else None
    if max(start, total or 0) > max_bytes:
        raise _too_large(url, max_bytes)
    name = os.path.basename(url)
    on_terminal = sys.stderr.isatty()
    done, last_line = start, time.monotonic()
    bar = tqdm(
        total=total,
        initial=start,
        desc=name,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not on_terminal,
    )
    if not on_terminal:
        _say(f"{name}: {_megabytes(done, total)}")
    mode = "ab" if start else "wb"
    with bar, open(part, mode, opener=open_without_links) as file:
        while chunk := response.read(_CHUNK_SIZE):
            if done + len(chunk) > max_bytes:
                raise _too_large(url, max_bytes)
            file.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
            if not on_terminal and time.monotonic() - last_line > _LINE_INTERVAL:
                _say(f"{name}: {_megabytes(done, total)}")
                last_line = time.monotonic()
    if total is not None and done < total:
        raise DownloadError(
            f"{url}: the connection broke off after {_megabytes(done, total)}. "
            "Run the command again to continue from there."
        )
    if not on_terminal:
        _say(f"{name}: {_megabytes(done, total)}, complete")


def _too_large(url, max_bytes):
    return DownloadError(
        f"{url} is larger than the {_megabytes(max_bytes)} that were expected: refused."
    )


def _range_starts_at(response, start):
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _validator_path(part):
    return part + ".etag"


def _read_validator(part):
    try:
        with open(_validator_path(part), encoding="latin-1") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def _write_validator(part, response):
    etag = response.headers.get("ETag", "")
    # HTTP allows strong validators only in If-Range.
    validator = etag if etag and not etag.startswith("W/") else None
    validator = validator or response.headers.get("Last-Modified")
    # The old bytes go first: they must never meet a validator not their own.
    _remove_if_there(part)
    _remove_if_there(_validator_path(part))
    if validator:
        with atomic_write(_validator_path(part), "w", encoding="latin-1") as file:
            file.write(validator)


def _unpack(path, output_dir, archive):
    """Unpacks beside the final place first, so that half never looks whole."""
    staging = os.path.join(output_dir, f".unpack-{archive.file_name}")
    # One that was killed here may have left its half behind.
    shutil.rmtree(staging, ignore_errors=True)
    try:
        os.mkdir(staging)
        _extract(path, staging, archive)
        names = sorted(os.listdir(staging))
        missing = sorted(set(archive.unpacks) - set(names))
        if missing:
            raise DownloadError(f"{path} does not contain {', '.join(missing)}.")
        for name in names:
            target = os.path.join(output_dir, name)
            if os.path.isdir(target):
                raise DownloadError(
                    f"{target} is in the way: move it and run the command again."
                )
            os.replace(os.path.join(staging, name), target)
    except (zipfile.BadZipFile, zlib.error) as error:
        os.remove(path)
        raise DownloadError(f"{path} is not a good zip file: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(path, folder, archive):
    name = os.path.basename(path)
    with zipfile.ZipFile(path) as file:
        members = [member for member in file.infolist() if _is_wanted(member, path)]
        size = sum(member.file_size for member in members)
        if size > archive.max_unpacked_bytes:
            # `zipfile` never writes more of a member than it declares.
            raise DownloadError(f"{path} would unpack to {size} bytes: refused.")
        _say(f"{name}: unpacking {len(members)} files, {_megabytes(size)}")
        for member in tqdm(members, desc=name, disable=not sys.stderr.isatty()):
            file.extract(member, folder)


def _is_wanted(member, path):
    parts = member.filename.replace("\\", "/").split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if (
        ".." in parts
        or parts[0] == ""
        or ":" in parts[0]
        or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    ):
        # Outside the folder, or a symbolic link that may lead there.
        raise DownloadError(f"{path} has an unsafe member: {member.filename!r}.")
    # What macOS adds to zip files is not part of any dataset.
    return not (member.is_dir() or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store")


def _md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()


def _megabytes(size, total=None):
    text = f"{size / 1e6:.1f} MB"
    return text if total is None else f"{text} of {total / 1e6:.1f} MB"


def _remove_if_there(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def _say(text):
    tqdm.write(printable_lines(text), file=sys.stderr)

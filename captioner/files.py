"""Files and folders that are written whole or not at all.

Everything that the package creates, it creates through this module: under a random name
that nobody else has, never through a symbolic link, and moved to its own name when it
is complete. A process that is killed leaves no half-written file under a real name.
"""

import codecs
import contextlib
import hashlib
import io
import json
import os
import pathlib
import secrets
import shutil
import tempfile

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def text_encoding(begin):
    """The encoding of a text file by its byte order mark; UTF-8 if it has none.

    Args:
        begin: its first bytes, four or more if there are that many.

    Returns:
        "utf-8", "utf-8-sig", "utf-16" or "utf-32".

    Example:

    >>> text_encoding("a dog".encode("utf-16"))
    'utf-16'
    """
    return next(
        (name for mark, name in _MARKS.items() if begin.startswith(mark)), "utf-8"
    )


@contextlib.contextmanager
def atomic_write(path, mode="wb", token=None, replace=True, sync=False, **arguments):
    """Write a file that appears under its name only when it is complete.

    Yields an open file in the folder of `path`. It becomes `path` at the end, and is
    removed where an error is raised before. A symbolic link at `path` is replaced; the
    file that it points to is left alone.

    Args:
        path: the file to write.
        mode: "wb" or "w".
        token: the unfinished file is named `.TOKEN.part`; random by default.
        replace: whether to replace a file that is there.
        sync: whether to wait until the file and its name are on the disk, so that they
            survive a power cut.
        arguments: as for `open`, such as `encoding`.

    Raises:
        FileExistsError: `replace` is false, and there is a file.
        OSError: the file cannot be written; it names `path`.

    Example:

    ```python
    with files.atomic_write("captions.txt", "w", encoding="utf-8") as file:
        file.write("a dog")
    ```
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{token or secrets.token_hex(8)}.part")
    try:
        descriptor = _create(part)
        try:
            with os.fdopen(descriptor, mode, **arguments) as file:
                try:
                    yield file
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
                except BaseException:
                    # A full disk would fail once more with what is in the buffer.
                    with contextlib.suppress(OSError):
                        file.close()
                    raise
            if replace:
                os.replace(part, path)
            else:
                _rename_to_new(part, path)
        finally:
            part.unlink(missing_ok=True)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(part)):  # a full disk names no file
            error.filename = str(path)
            error.filename2 = None
        raise


def _create(path):
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o666)


def _rename_to_new(part, path):
    """Rename a file, but never over another that came in the meantime."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror, str(path)) from error
    except OSError as error:  # a file system without hard links, such as exFAT
        if os.path.lexists(path):
            raise FileExistsError(17, "File exists", str(path)) from error
        os.rename(part, path)


@contextlib.contextmanager
def as_text(file, errors="strict", newline=None):
    """A binary file as a UTF-8 text file, which is not closed at the end.

    Args:
        file: a file that is open for writing.
        errors, newline: as for `open`.

    Example:

    ```python
    with files.atomic_write("captions.csv") as file, files.as_text(file) as text:
        text.write("a dog")
    ```
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors=errors, newline=newline)
    try:
        yield text
        text.flush()
    finally:
        with contextlib.suppress(OSError):  # a full disk failed in `flush` already
            text.detach()


@contextlib.contextmanager
def atomic_folder(path):
    """Fill a folder that appears under its name only when it is complete.

    Yields an empty folder beside `path`. It becomes `path` at the end, in place of a
    folder that is there, and is removed where an error is raised before.

    Raises:
        OSError: the folder cannot be written; it names `path`.

    Example:

    ```python
    with files.atomic_folder("exported") as folder:
        (folder / "model.bin").write_bytes(b"...")
    ```
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield new
        new.chmod(0o755)
        if path.exists():
            # Two renames: a reader sees the old folder, none, or the new one.
            old = new.with_name(new.name + ".old")
            path.rename(old)
            new.rename(path)
            shutil.rmtree(old)
        else:
            new.rename(path)
    except OSError as error:
        if error.errno is None:  # not of the operating system
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_json(path, value):
    """Write JSON in one step, see `atomic_write`.

    Raises:
        OSError: the file cannot be written.
        TypeError: JSON has no form for the value.

    Example:

    ```python
    files.write_json("recipe.json", {"epochs": 10})
    ```
    """
    # A file name that is not valid text holds surrogates, which become escapes.
    with atomic_write(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def open_without_links(path, flags):
    """An `opener` for `open` that refuses a symbolic link.

    Example:

    ```python
    with open("photos.zip.part", "ab", opener=files.open_without_links) as file:
        file.write(b"...")
    ```
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def sync_folder(folder):
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path):
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

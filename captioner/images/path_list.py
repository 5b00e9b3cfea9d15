"""Lists of files for `--files-from`: one a line, or as `find -print0` writes them.

A list is read to its end and checked before its first photo is: an encoding that is
mistaken, or a wrong separator, makes other paths of it, and "/" is one of them.
"""

import contextlib
import csv
import io
import os
import shlex
import sys
import tempfile
import unicodedata

from captioner.files import text_encoding

MAX_LIST_BYTES = 2**30
MAX_LINE = 2**15  # characters; a path has 4,096 bytes at most, and a line more columns
_IN_MEMORY = 2**20


def read_path_list(source, trust_list=False):
    """The paths that a list names.

    A byte order mark tells UTF-8, UTF-16 and UTF-32; a list without one is UTF-8. A
    line is taken as it is if there is such a file, and otherwise without spaces and
    quotes around it, with "/" for a backslash, in the other Unicode form, or the first
    column of a CSV. Blank lines and lines that begin with "# " are left out. Wildcards
    have no meaning in a list.

    Args:
        source: path of a file; "-" is standard input.
        trust_list: allow folders that contain the working folder, as "/" and "..".

    Returns:
        An iterator of str. A path that is not there is among them as it was written.

    Raises:
        ValueError: the list is neither UTF-8 nor marked, has null bytes and is not
            separated by them, is too large, or names a folder that contains the working
            folder.
        OSError: it cannot be read.

    Example:

    ```python
    for path in read_path_list("photos.txt"):
        print(path)
    ```
    """
    name = "standard input" if os.fspath(source) == "-" else os.fspath(source)
    # The paths as they were found, each with a null byte after it.
    found = tempfile.SpooledTemporaryFile(_IN_MEMORY)
    try:
        with contextlib.closing(_text_of(source, name)) as text:
            for path in _checked_paths(text, name, trust_list):
                found.write(os.fsencode(path) + b"\0")
    except BaseException:
        found.close()
        raise
    found.seek(0)
    return _paths_in(found)


def _paths_in(found):
    with found:
        file = io.TextIOWrapper(found, "utf-8", "surrogateescape", newline="\n")
        yield from _split(file, "\0")


def _text_of(source, name):
    """The decoded text of a list, as a file that can be read twice."""
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY)
    with contextlib.ExitStack() as stack:
        if os.fspath(source) == "-":
            file = sys.stdin.buffer
        else:
            file = stack.enter_context(open(source, "rb"))
        while chunk := file.read1(2**16):
            copy.write(chunk)
            if copy.tell() > MAX_LIST_BYTES:
                copy.close()
                raise ValueError(
                    f"The list has more than {MAX_LIST_BYTES:,} bytes. "
                    f"Received: files_from={name}"
                )
    copy.seek(0)
    encoding = text_encoding(copy.read(4))
    copy.seek(0)
    # What is not UTF-8 may be the name of a file all the same; see `_checked_paths`.
    errors = "strict" if encoding in ("utf-16", "utf-32") else "surrogateescape"
    return io.TextIOWrapper(copy, encoding, errors, newline="\n")


def _checked_paths(text, name, trust_list):
    """The paths in a list; raises `ValueError` if it may mean something else."""
    above = set() if trust_list else _folders_above()
    try:
        chunks = iter(lambda: text.read(2**16), "")
        separator = "\0" if any("\0" in chunk for chunk in chunks) else "\n"
        if separator == "\0":
            text.seek(0)
            for number, entry in _entries(text, separator, name):
                _check_plausible(entry, number, name)
        text.seek(0)
        for number, line in _entries(text, separator, name):
            path = line if separator == "\0" else _path_in_line(line)
            if path is None:
                continue
            if separator == "\n" and _is_not_utf8(path) and not os.path.lexists(path):
                raise ValueError(
                    f"{name}: line {number} is not UTF-8 text and names no file. "
                    "Convert the list to UTF-8, for example: "
                    f"iconv -f CP1252 -t UTF-8 {shlex.quote(name)} > list-utf8.txt"
                )
            if above and _identity(path) in above:
                raise ValueError(
                    f"{name}: entry {number} names the folder {path}, which contains "
                    "the working folder. If you want to caption all of it, use --yes "
                    "(in Python: trust_list=True)."
                )
            yield path
    except UnicodeError as error:
        raise ValueError(
            f"{name} has the byte order mark of {text.encoding.upper()}, but is not "
            f"valid {text.encoding.upper()}: {error}."
        ) from error


def _check_plausible(entry, number, name):
    """Refuse null bytes that are no separators, as those of UTF-16."""
    if len(entry) > 1 and "\n" not in entry or os.path.lexists(entry):
        return
    raise ValueError(
        f"{name} has null bytes, but they do not separate paths: entry {number} is "
        f"{entry[:80]!r}. If the list is UTF-16, convert it to UTF-8, for example: "
        f"iconv -f UTF-16LE -t UTF-8 {shlex.quote(name)} > list-utf8.txt"
    )


def _entries(text, separator, name):
    """(number, entry) of each entry of a list that is not empty, counted from 1."""
    for number, entry in enumerate(_split(text, separator), 1):
        if len(entry) > MAX_LINE:
            raise ValueError(
                f"{name}: entry {number} has more than {MAX_LINE:,} characters. "
                "Is this a list of paths?"
            )
        yield number, entry


def _split(file, separator):
    """The parts of a text that are not empty. One that is too long comes unfinished."""
    rest = ""
    while chunk := file.read(2**15):
        *whole, rest = (rest + chunk).split(separator)
        yield from filter(None, whole)
        if len(rest) > MAX_LINE:
            yield rest
    if rest:
        yield rest


def _path_in_line(line):
    """The path that a line means, or None if it means none."""
    if os.path.lexists(line):
        return line
    line = line.removesuffix("\r")  # of a list that Windows wrote
    if not line.strip() or line.startswith("# "):
        return None
    for written in (line, line.strip(), _unquoted(line.strip())):
        for path in _spellings(written):
            if os.path.lexists(path):
                return path
    for separator in ",;\t":
        with contextlib.suppress(csv.Error, StopIteration):
            column = next(csv.reader([line], delimiter=separator))[0].strip()
            for path in _spellings(column):
                if os.path.isfile(path):  # half of a name may be that of a folder
                    return path
    return line


def _spellings(path):
    """A path, and what it may be on another system."""
    for path in dict.fromkeys((path, path.replace("\\", "/"))):
        yield path
        if not path.isascii():
            yield unicodedata.normalize("NFC", path)
            yield unicodedata.normalize("NFD", path)


def _unquoted(line):
    quoted = len(line) > 2 and line[0] == line[-1] and line[0] in "\"'"
    return line[1:-1] if quoted else line


def _is_not_utf8(path):
    return any("\udc80" <= character <= "\udcff" for character in path)


def _folders_above():
    """What tells the root and the folders above the working folder from others."""
    here = os.path.realpath(os.curdir)
    folders = {_identity(os.sep)}
    while (above := os.path.dirname(here)) != here:
        folders.add(_identity(above))
        here = above
    return folders


def _identity(path):
    """What tells one folder from all others; None of what is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino

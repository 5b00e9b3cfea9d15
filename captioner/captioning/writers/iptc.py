"""The caption in IPTC-IIM, dataset 2:120, and Photoshop's resources that hold it.

IPTC, "IIM Version 4.2"; Adobe, "Photoshop File Formats Specification". Flat lists of
records with a length each: they are read in one pass, within the bytes that are there.
"""

import hashlib
import struct

from captioner.captioning.writers.existing import plain

_CHARSET, _CAPTION = (1, 90), (2, 120)
_UTF8 = b"\x1b%G"
_BINARY = {0, 125, *range(200, 203)}  # datasets of record 2 that are no text
_LONGEST = 0x7FFF  # bytes in a dataset, and the highest bit is not a length's
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425
_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")


def read_iptc_text(iim):
    """The caption in IPTC-IIM data, or None.

    Args:
        iim: bytes.

    Raises:
        ValueError: they are damaged.
    """
    datasets = list(_datasets(iim))
    texts = [
        plain(_decoded(value, (_CHARSET, _UTF8) in datasets)).strip("\n ")
        for key, value in datasets
        if key == _CAPTION
    ]
    return next(filter(None, texts), None)


def write_iptc_text(text, iim=b""):
    """IPTC-IIM data with this caption; all else stays, its encoding excepted where the
    caption needs UTF-8.

    Args:
        text: str.
        iim: bytes of the data to change.

    Returns:
        bytes.

    Raises:
        ValueError: `iim` is damaged, or the text is longer than 32,767 bytes.
    """
    value = plain(text).encode()
    if len(value) > _LONGEST:
        raise ValueError(f"a caption in IPTC must not exceed {_LONGEST:,} bytes")
    datasets = [each for each in _datasets(iim) if each[0] != _CAPTION]
    if (_CHARSET, _UTF8) not in datasets and not text.isascii():
        datasets = [
            (key, _decoded(old).encode() if _is_text(key) else old)
            for key, old in datasets
            if key != _CHARSET
        ]
        datasets.append((_CHARSET, _UTF8))
    datasets.append((_CAPTION, value))
    datasets.sort(key=lambda each: each[0])  # stable: keywords stay in their order
    return b"".join(
        (
            struct.pack(">BBBH", 0x1C, *key, len(value)) + value
            if len(value) <= _LONGEST
            else struct.pack(">BBBHI", 0x1C, *key, 0x8004, len(value)) + value
        )
        for key, value in datasets
    )


def _is_text(key):
    return key[0] == 2 and key[1] not in _BINARY


def _decoded(value, is_utf8=False):
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("utf-8" if is_utf8 else "cp1252", "replace")


def _datasets(iim):
    """((record, dataset), value) of each."""
    at = 0
    while at < len(iim) and iim[at] == 0x1C:  # what follows is padding
        if len(iim) < at + 5:
            raise ValueError("the IPTC data is damaged")
        record, dataset, size = struct.unpack(">BBH", iim[at + 1 : at + 5])
        at += 5
        if size & 0x8000:
            length = size & 0x7FFF
            size = int.from_bytes(iim[at : at + length], "big")
            at += length
        if at + size > len(iim):
            raise ValueError("the IPTC data is damaged")
        yield (record, dataset), iim[at : at + size]
        at += size


def read_resources(data):
    """Photoshop's resources.

    Args:
        data: bytes.

    Returns:
        A list of (head, number, value): what comes before a resource's length, its
        number, and its bytes.

    Raises:
        ValueError: they are damaged.
    """
    found, at = [], 0
    while data[at : at + 4] in _SIGNATURES:
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        begin = at + 7 + int.from_bytes(data[at + 6 : at + 7], "big")
        begin += (begin - at) % 2
        size = int.from_bytes(data[begin : begin + 4], "big")
        if begin + 4 + size > len(data):
            raise ValueError("the Photoshop resources are damaged")
        value = data[begin + 4 : begin + 4 + size]
        found.append((data[at:begin], number, value))
        at = begin + 4 + size + size % 2
    if data[at:].strip(b"\0"):
        raise ValueError("the Photoshop resources are damaged")
    return found


def iptc_of(resources):
    """The IPTC-IIM data among Photoshop's resources, or None.

    Args:
        resources: as of `read_resources`.
    """
    return next((v for _, number, v in resources if number == _IPTC), None)


def write_resources(resources, iim):
    """Photoshop's resources with this IPTC-IIM data and its digest.

    Args:
        resources: as of `read_resources`.
        iim: bytes.

    Returns:
        bytes.
    """
    # Photoshop takes the IPTC data for changed by others unless its digest is right.
    new = {_IPTC: iim, _IPTC_DIGEST: hashlib.md5(iim, usedforsecurity=False).digest()}
    resources = [each for each in resources if each[1] not in new]
    for number, value in new.items():
        resources.append((b"8BIM" + struct.pack(">HH", number, 0), number, value))
    return b"".join(
        head + struct.pack(">I", len(value)) + value + bytes(len(value) % 2)
        for head, _, value in resources
    )

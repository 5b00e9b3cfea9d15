"""The caption in a photo's own metadata, in XMP, IPTC and EXIF."""

import contextlib
import os
import pathlib
import stat

from captioner.captioning.writers.camera_texts import is_camera_text
from captioner.captioning.writers.exif import read_exif_texts, write_exif_text
from captioner.captioning.writers.image_blocks import (
    MAX_BLOCK_BYTES,
    FileBytes,
    find_blocks,
    replace_blocks,
)
from captioner.captioning.writers.iptc import (
    iptc_of,
    read_iptc_text,
    read_resources,
    write_iptc_text,
    write_resources,
)
from captioner.captioning.writers.xmp import read_description, write_description
from captioner.captioning.writers.xmp_sidecar import read_xmp_sidecar, xmp_paths


def caption_of(photo, own_files=()):
    """The caption that a photo has before it is captioned: in an XMP file beside it, or
    in its own metadata.

    Args:
        photo: `Photo`.
        own_files: paths of files that do not count.

    Returns:
        str, or None where there is no caption or only a camera's default text. Of a
        photo that cannot be read, or whose metadata is damaged, the parts before the
        damage count.

    Raises:
        ValueError: an XMP file beside it cannot be read.
    """
    if photo.member is None:
        own_files = set(map(os.path.abspath, own_files))
        for path in xmp_paths(pathlib.Path(photo.path)):
            if os.path.abspath(path) not in own_files:
                if text := read_xmp_sidecar(path):
                    return text
    try:
        if photo.member is None:
            return caption_in_file(photo.path)
        return caption_in(photo.read())
    except (OSError, ValueError):  # captioning it will say what is wrong
        return None


def caption_in_file(path):
    """`caption_in` of a file; only its metadata is read.

    Raises:
        OSError: it cannot be opened.
    """
    # A pipe does not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return caption_in(FileBytes(descriptor))
    finally:
        os.close(descriptor)


def caption_in(data):
    """The caption in the metadata of an image file: that in XMP, else in IPTC, else in
    EXIF.

    Args:
        data: bytes, or anything with a length of which slices are bytes.

    Returns:
        str, or None where there is none that can be read, or only a camera's default
        text.
    """
    blocks = {}
    with contextlib.suppress(ValueError):  # the blocks before the damage count
        _gather(data, blocks)
    for kind in ("xmp", "photoshop", "iptc", "exif"):
        if kind in blocks:
            with contextlib.suppress(ValueError):
                for text in _texts(kind, blocks[kind]):
                    if not is_camera_text(text):
                        return text
    return None


def _gather(data, blocks):
    """Put the blocks of an image file into a dict."""
    for kind, block in find_blocks(data):
        if kind == "photoshop":  # resources go on in the next part
            block = blocks.get(kind, b"") + block
            if len(block) > MAX_BLOCK_BYTES:
                raise ValueError("its metadata is too large")
            blocks[kind] = block
        else:
            blocks.setdefault(kind, block)


def _texts(kind, block):
    if kind == "exif":
        return read_exif_texts(block)
    if kind == "photoshop":
        block, kind = iptc_of(read_resources(block)) or b"", "iptc"
    text = read_iptc_text(block) if kind == "iptc" else read_description(block)
    return [] if text is None else [text]


def with_caption(data, text, keep_translations=False):
    """An image file with this caption in all of its metadata; its pixels and all other
    metadata stay.

    A JPEG file gets XMP, IPTC and EXIF. PNG and WebP files get XMP, and EXIF where they
    have EXIF data.

    Args:
        data: bytes of a JPEG, PNG or WebP file.
        text: str.
        keep_translations: keep the XMP descriptions in other languages.

    Returns:
        bytes.

    Raises:
        ValueError: it is none of these files; or its metadata is damaged, or has no
            room for the text.
    """
    blocks = {}
    _gather(data, blocks)
    new = {"xmp": write_description(text, blocks.get("xmp"), keep_translations)}
    is_jpeg = data.startswith(b"\xff\xd8")
    if is_jpeg or "exif" in blocks:
        new["exif"] = write_exif_text(text, blocks.get("exif"))
    if is_jpeg:
        resources = read_resources(blocks.get("photoshop", b""))
        iim = write_iptc_text(text, iptc_of(resources) or b"")
        new["photoshop"] = write_resources(resources, iim)
    return replace_blocks(data, new)

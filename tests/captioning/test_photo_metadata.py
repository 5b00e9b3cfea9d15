"""Captions in XMP, IPTC and EXIF: what others wrote is read, what we write is read by
others, and nothing that a file may hold does more than cost its own photo."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.captioning.writers.camera_texts import is_camera_text
from captioner.captioning.writers.exif import read_exif_texts, write_exif_text
from captioner.captioning.writers.existing import plain
from captioner.captioning.writers.image_blocks import find_blocks
from captioner.captioning.writers.iptc import (
    iptc_of,
    read_iptc_text,
    read_resources,
    write_iptc_text,
    write_resources,
)
from captioner.captioning.writers.photo_metadata import (
    caption_in,
    caption_in_file,
    with_caption,
)
from captioner.captioning.writers.xmp import read_description, write_description
from captioner.images.image_files import load_image

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
TEXT = "a <b> & 'ünïcödé' 🐈 \"dog\" שלום\nand \u2028 more"
WORDS = "Anna with her horses, 2019"
RDF = (
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
    b'<rdf:Description rdf:about="" xmp:Rating="5">%s</rdf:Description></rdf:RDF>'
)
ALTERNATIVES = (
    b'<rdf:Alt><rdf:li xml:lang="de-DE">Pferde</rdf:li>'
    b'<rdf:li xml:lang="x-default">Horses</rdf:li></rdf:Alt>'
)


def image(suffix, size=(9, 7)):
    pixels = load_image(SAMPLES / "coffee.jpg")[: size[0], : size[1]]
    return cv2.imencode(suffix, pixels)[1].tobytes()


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments, data=None):
    data = data or image(".jpg")
    return data[:20] + b"".join(segments) + data[20:]  # after JFIF


def xmp_segment(packet):
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def iptc_segment(iim):
    return segment(0xED, b"Photoshop 3.0\0" + write_resources([], iim))


def exif(order, description=b"", comment=b"", windows=b"", maker=b"MAKER at its place"):
    """An EXIF block by hand: description, Windows comment, maker note, comment."""
    values, entries, private = b"", [], []
    at = 8 + 2 + 3 * 12 + 4
    start = at + 2 + 2 * 12 + 4
    for tag, kind, value, where in (
        (0x010E, 2, description, entries),
        (0x9C9C, 1, windows, entries),
        (0x9286, 7, comment, private),
        (0x927C, 7, maker, private),
    ):
        value = value or bytes(5)
        position = struct.pack(order + "I", start + len(values))
        where.append(struct.pack(order + "HHI", tag, kind, len(value)) + position)
        values += value
    entries.append(struct.pack(order + "HHII", 0x8769, 4, 1, at))
    entries.sort(key=lambda entry: struct.unpack(order + "H", entry[:2]))
    private.sort(key=lambda entry: struct.unpack(order + "H", entry[:2]))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    block = mark + struct.pack(order + "IH", 8, 3) + b"".join(entries) + bytes(4)
    return block + struct.pack(order + "H", 2) + b"".join(private) + bytes(4) + values


def exif_segment(block):
    return segment(0xE1, b"Exif\0\0" + block)


def texts(data):
    """All captions in a file, by the kind of metadata."""
    found = {}
    for kind, block in find_blocks(data):
        if kind == "exif":
            found[kind] = read_exif_texts(block)
        elif kind == "xmp":
            found[kind] = [read_description(block)]
        else:
            found[kind] = [read_iptc_text(iptc_of(read_resources(block)))]
    return found


# What is there ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "segments, text",
    [
        ([xmp_segment(write_description(WORDS))], WORDS),
        ([iptc_segment(write_iptc_text(WORDS))], WORDS),
        ([iptc_segment(b"\x1c\x02\x78\0\x05" + "Fête!".encode("latin-1"))], "Fête!"),
        ([exif_segment(write_exif_text(WORDS))], WORDS),
        ([exif_segment(exif("<", WORDS.encode() + b"\0"))], WORDS),
        ([exif_segment(exif(">", b"", b"ASCII\0\0\0" + WORDS.encode()))], WORDS),
        ([exif_segment(exif(">", b"", b"UNICODE\0" + TEXT.encode("utf-16-be")))], TEXT),
        (
            [exif_segment(exif(">", b"", b"UNICODE\0" + WORDS.encode("utf-16-le")))],
            WORDS,
        ),
        ([exif_segment(exif("<", windows=WORDS.encode("utf-16-le")))], WORDS),
        # The surest first: XMP, IPTC, EXIF; and a camera's text hides nothing.
        ([exif_segment(exif("<", b"exif")), iptc_segment(write_iptc_text("of"))], "of"),
        (
            [exif_segment(exif("<", b"e")), xmp_segment(write_description("x"))],
            "x",
        ),
        ([exif_segment(exif("<", b"SONY DSC", b"ASCII\0\0\0my dog"))], "my dog"),
        ([exif_segment(exif("<", b"OLYMPUS DIGITAL CAMERA         \0"))], None),
        ([xmp_segment(write_description("DCIM\\100MEDIA\\DJI_0012.JPG"))], None),
        ([], None),
        # Damage hides only what is damaged.
        ([xmp_segment(b"<x"), iptc_segment(write_iptc_text(WORDS))], WORDS),
        ([exif_segment(b"MM\0*\0\0\xff\xff"), iptc_segment(b"\x1c\2\x78\xff")], None),
    ],
)
def test_a_caption_is_found_where_people_write_it(tmp_path, segments, text):
    assert caption_in(jpeg(*segments)) == text
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(*segments))
    assert caption_in_file(path) == text


def test_captions_that_pillow_wrote_are_found():
    Image = pytest.importorskip("PIL.Image")
    picture = Image.new("RGB", (5, 5))
    metadata = Image.Exif()
    metadata[0x010E] = WORDS
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        picture.save(file, form, exif=metadata)
        assert caption_in(file.getvalue()) == WORDS, form
    file = io.BytesIO()
    picture.save(file, "TIFF", tiffinfo={700: write_description(TEXT)})
    assert caption_in(file.getvalue()) == TEXT


@pytest.mark.parametrize(
    "text, is_default",
    [
        ("OLYMPUS DIGITAL CAMERA", True),
        ("  Sony   DSC ", True),
        ("DCIM", True),
        ("DCIM100GOPRO", True),
        ("IMG_0001.JPG", True),
        ("Processed with VSCO with a6 preset", True),
        ("ImageJ=1.53t\nunit=micron", True),
        ('{"shape": [5, 5]}', True),
        ("2019-07-01", True),
        ("Pferde", False),
        ("马", False),
        ("my SONY DSC camera", False),
        ("Taken with love", False),
        ("<3 Anna", False),
    ],
)
def test_what_a_camera_wrote_is_no_caption(text, is_default):
    assert is_camera_text(text) is is_default


def test_no_pipe_is_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "photo.jpg")
    assert caption_in_file(tmp_path / "photo.jpg") is None


# What is written --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_pixels_stay_and_others_read_what_is_written(suffix):
    data = image(suffix, (99, 77))
    once = with_caption(data, "first")
    twice = with_caption(once, TEXT)
    assert caption_in(once) == "first" and caption_in(twice) == TEXT
    assert twice.count(b"W5M0MpCehiHzreSzNTczkc9d") == 1 and b"first" not in twice
    for file in (once, twice):
        np.testing.assert_array_equal(load_image(file), load_image(data))
    Image = pytest.importorskip("PIL.Image")
    with Image.open(io.BytesIO(twice)) as opened:
        opened.load()
        xmp = opened.info.get("xmp") or opened.info["XML:com.adobe.xmp"]
        said = opened.getexif().get(0x010E)
        resources = opened.info.get("photoshop")
    xmp = xmp if isinstance(xmp, bytes) else xmp.encode()
    assert read_description(xmp) == TEXT
    if suffix == ".jpg":
        assert said.encode("latin-1").decode() == TEXT
        assert TEXT.encode() in resources[0x0404]
        assert texts(twice) == {"xmp": [TEXT], "photoshop": [TEXT], "exif": [TEXT]}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("text", ["a dog", TEXT, "a dog " * 99])
def test_no_place_keeps_the_old_words(order, text):
    byline = "Müller".encode("latin-1")
    iim = b"\x1c\x02\x50\0\x06" + byline + write_iptc_text("IPTC's old words")
    unicode = "be" if order == ">" else "le"
    block = exif(
        order,
        b"EXIF's old words\0",
        b"UNICODE\0" + "old comment".encode(f"utf-16-{unicode}"),
        "old words in Windows".encode("utf-16-le"),
    )
    packet = RDF % (
        b"<dc:description>" + ALTERNATIVES + b"</dc:description>"
        b"<tiff:ImageDescription>old words</tiff:ImageDescription>"
    )
    data = jpeg(iptc_segment(iim), xmp_segment(packet), exif_segment(block))
    new = with_caption(data, text)
    text = text.rstrip()
    found = texts(new)
    assert found["exif"] == [text] * 3
    assert found["xmp"][0].rstrip() == text and found["photoshop"] == [text]
    for old in ("old", "Horses", "Pferde"):
        for encoding in ("utf-8", "utf-16-le"):
            assert old.encode(encoding) not in new
    # Everything else is as it was, at its place.
    assert b'Rating="5"' in new
    (changed,) = (found for kind, found in find_blocks(new) if kind == "exif")
    assert changed.index(b"MAKER at its place") == block.index(b"MAKER at its place")
    kept = byline if text.isascii() else "Müller".encode()
    assert b"\x1c\x02\x50" + struct.pack(">H", len(kept)) + kept in new
    np.testing.assert_array_equal(load_image(new), load_image(data))


def test_new_metadata_comes_after_jfif_and_before_all_else():
    xmp, plain_jpeg = xmp_segment(write_description("old")), image(".jpg")
    comment = segment(0xFE, b"a comment")
    for data in (
        jpeg(comment, xmp),
        plain_jpeg[:2] + xmp + plain_jpeg[2:20] + comment + plain_jpeg[20:],
    ):
        new = with_caption(data, "a dog")
        assert new[2:4] == b"\xff\xe0" and new[20:22] == b"\xff\xe1"
        assert new[24:30] == b"Exif\0\0" and b"old" not in new
        assert new.endswith(comment + plain_jpeg[20:])


def test_orientation_and_notes_of_a_program_stay():
    block = exif(">", comment=b'ASCII\0\0\0{"focus": 3}')
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # turned by a quarter
    block = block[:10] + entry + block[22:]  # in place of the empty description
    data = jpeg(exif_segment(block))
    assert load_image(data).shape[:2] == (7, 9)
    new = with_caption(data, "a dog")
    assert load_image(new).shape[:2] == (7, 9) and b'{"focus": 3}' in new
    assert texts(new)["exif"] == ["a dog", '{"focus": 3}']


def test_what_cannot_hold_a_caption_is_said_so():
    for data in (b"", b"GIF89a", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBPVP8 "):
        with pytest.raises(ValueError):
            with_caption(data, "text")
    for text in ("é" * 20_000, "a" * 70_000):
        with pytest.raises(ValueError, match="IPTC|too large"):
            with_caption(image(".jpg"), text)


def test_what_else_is_in_an_xmp_file_stays_in_it():
    packet = b"""<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'>
    <rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
    <rdf:Description rdf:about='' xmlns:xmp='http://ns.adobe.com/xap/1.0/'
     xmlns:dc='http://purl.org/dc/elements/1.1/' xmp:Rating='5' dc:description='short'>
    <dc:subject><rdf:Bag><rdf:li>beach</rdf:li></rdf:Bag></dc:subject>
    </rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""
    for data in (packet, packet.decode().encode("utf-16"), b"\xef\xbb\xbf" + packet):
        assert read_description(data) == "short"
        changed = write_description("a dog", data)
        assert read_description(changed) == "a dog"
        root = ElementTree.fromstring(changed)
        assert [e.text for e in root.iter() if e.text == "beach"] == ["beach"]
        assert b'xmp:Rating="5"' in changed and b"short" not in changed
    for wrong in (b"", b"<a/>", b"text", b"<x", b"\xff\xfe"):
        with pytest.raises(ValueError, match="not XMP"):
            read_description(wrong)


def test_translations_stay_where_words_are_added():
    packet = RDF % (b"<dc:description>" + ALTERNATIVES + b"</dc:description>")
    assert read_description(packet) == "Horses"
    added = write_description("Horses\na horse", packet, keep_translations=True)
    assert read_description(added) == "Horses\na horse" and b"Pferde" in added
    assert b"Pferde" not in write_description("a horse", packet)


def test_the_description_is_that_of_the_photo_and_not_of_its_parts():
    part = RDF % (
        b"<xmp:Parts><rdf:Description><dc:description>of a part</dc:description>"
        b"</rdf:Description></xmp:Parts>"
    )
    assert read_description(part) is None
    changed = write_description("a dog", part)
    assert read_description(changed) == "a dog" and b"of a part" in changed


# What attacks -----------------------------------------------------------------------


def deep(depth):
    return RDF % (b"<a>" * depth + b"</a>" * depth)


@pytest.mark.parametrize(
    "packet, reason",
    [
        (deep(3_000), "nested more than"),
        (deep(300_000), "nested more than"),
        (RDF % (b"<a/>" * 200_000), "more than 100,000 elements"),
        (b"<!DOCTYPE a [<!ENTITY e 'x'>]>" + RDF % b"&e;", "a document type"),
        (b"<!DOCTYPE a SYSTEM '/etc/hostname'>" + RDF % b"", "a document type"),
        (RDF % b"&undefined;", "undefined entity"),
        (RDF % bytes(2**22), "larger than"),
    ],
)
def test_xmp_beyond_what_programs_write_is_refused(packet, reason):
    for use in (read_description, lambda data: write_description("a dog", data)):
        with pytest.raises(ValueError, match=f"not XMP: .*{reason}"):
            use(packet)
    assert read_description(deep(50)) is None


def test_a_compressed_packet_is_read_and_one_that_inflates_without_end_is_not():
    png = image(".png")

    def with_text(text):
        body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text, 9)
        chunk = struct.pack(">I", len(body) - 4) + body
        return png[:33] + chunk + struct.pack(">I", zlib.crc32(body)) + png[33:]

    assert caption_in(with_text(write_description("a dog"))) == "a dog"
    bomb = with_text(bytes(2**27))
    assert len(bomb) < 2**18
    tracemalloc.start()
    try:
        assert caption_in(bomb) is None
        with pytest.raises(ValueError, match="too large"):
            with_caption(bomb, "a dog")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 2**24,
        b"\xff\xd8" + b"\xff\xe1\0\2" * 2**22,
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0tEXt\0\0\0\0" * 2**20,
        b"RIFF\xff\xff\xff\0WEBP" + b"EXIF\0\0\0\0" * 2**20,
    ],
    ids=["padding", "JPEG segments", "PNG chunks", "WebP chunks"],
)
def test_a_file_of_nothing_but_parts_is_given_up(data):
    count = 0

    class Counted(bytes):
        def __getitem__(self, part):
            nonlocal count
            count += 1
            return super().__getitem__(part)

    with pytest.raises(ValueError, match="damaged"):
        for _ in find_blocks(Counted(data)):
            pass
    assert count < 2**21  # reads, of 16 million bytes


def files_with_metadata():
    """Small files of each format, with all metadata that we know of."""
    iim = b"\x1c\x02\x50\0\x03abc" + write_iptc_text("in IPTC")
    block = exif("<", b"in EXIF\0", b"UNICODE\0c\0", "w".encode("utf-16-le"))
    whole = jpeg(
        exif_segment(block),
        xmp_segment(RDF % (b"<dc:description>" + ALTERNATIVES + b"</dc:description>")),
        iptc_segment(iim),
    )
    others = [with_caption(image(suffix), TEXT) for suffix in (".png", ".webp")]
    return [whole, with_caption(image(".jpg"), TEXT), *others, block, exif(">", b"e")]


@st.composite
def damaged(draw, files):
    """A file with some bytes changed, left out, doubled, or cut off."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"\0" * 4, b"\xff" * 4]))
        data[at : at + draw(st.integers(0, 8))] = new
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


def short_and_long(short, long):
    """Parametrizes a test with settings of Hypothesis: the same few examples each time,
    and some minutes of others."""
    quick = settings(max_examples=short, deadline=None, derandomize=True, database=None)
    thorough = settings(max_examples=long, deadline=None, database=None)
    return pytest.mark.parametrize(
        "effort",
        [quick, pytest.param(thorough, marks=(pytest.mark.slow, pytest.mark.fuzz))],
    )


@short_and_long(200, 20_000)
def test_damage_gives_a_caption_or_an_error(effort):
    @effort
    @given(damaged(files_with_metadata()))
    def check(data):
        text = caption_in(data)
        assert text is None or text.strip()
        try:
            new = with_caption(data, TEXT)
        except ValueError:
            return
        # What is written is there, and all of it.
        assert caption_in(new) == TEXT
        assert all(found[0] == TEXT for found in texts(new).values())

    check()


@short_and_long(200, 20_000)
@pytest.mark.parametrize(
    "read",
    [
        read_description,
        read_exif_texts,
        read_iptc_text,
        read_resources,
        lambda data: write_description("a", data),
        lambda data: write_exif_text("a", data),
        lambda data: write_iptc_text("é", data),
    ],
    ids=["xmp", "exif", "iptc", "resources", "to xmp", "to exif", "to iptc"],
)
def test_any_bytes_give_an_error_or_a_result(read, effort):
    blocks = [block for data in files_with_metadata() for _, block in _blocks(data)]

    @effort
    @given(damaged(blocks) | st.binary())
    def check(data):
        try:
            read(data)
        except ValueError:
            pass

    check()


def _blocks(data):
    for kind, block in find_blocks(data):
        yield kind, block
        if kind == "photoshop":
            yield "iptc", iptc_of(read_resources(block))


any_text = st.text(st.characters(exclude_categories=())) | st.text(
    st.sampled_from("a \n\r\t\0\x85&<>\"']🐈שׁ\u202e\ufeff\ufffe\ud800")
)


@short_and_long(200, 20_000)
def test_any_text_comes_back_from_xmp(effort):
    packets = [None, deep(5), RDF % b"<dc:description>old</dc:description>"]

    @effort
    @given(any_text, st.sampled_from(packets), st.booleans())
    def check(text, packet, keep):
        written = write_description(text, packet, keep)
        expected = plain(text) if plain(text).strip() else None
        assert read_description(written) == expected
        assert written.decode() and b"old" not in written

    check()


@short_and_long(100, 20_000)
def test_any_text_is_the_same_in_all_metadata_of_a_copy(effort):
    files = [jpeg(exif_segment(exif(order, b"e", b"ASCII\0\0\0c"))) for order in "<>"]
    files += [image(suffix) for suffix in (".jpg", ".png", ".webp")]

    @effort
    @given(any_text, st.sampled_from(files))
    def check(text, data):
        new, expected = with_caption(data, text), plain(text).strip()
        for found in texts(new).values():
            assert {(each or "").strip() for each in found} <= {expected}
        np.testing.assert_array_equal(load_image(new), load_image(data))

    check()

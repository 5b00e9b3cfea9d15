"""The texts that cameras and programs write where people write captions.

They are no captions. The list has what makers are known to write by default (in part
from the blacklists of Wikimedia Commons and WordPress); upper and lower case and white
space make no difference. What is missing here counts as a caption, and the photo is
not captioned unless `--existing` says so; so add what you meet.
"""

import re

CAMERA_TEXTS = frozenset(
    text.casefold()
    for text in (
        "OLYMPUS DIGITAL CAMERA",
        "MINOLTA DIGITAL CAMERA",
        "KONICA MINOLTA DIGITAL CAMERA",
        "PENTAX DIGITAL CAMERA",
        "SAMSUNG DIGITAL CAMERA",
        "SAMSUNG CAMERA PICTURES",
        "KODAK DIGITAL STILL CAMERA",
        "VIVITAR DIGITAL CAMERA",
        "DIGITAL CAMERA",
        "DIGITAL STILL CAMERA",
        "DIGITAL IMAGE",
        "SONY DSC",
        "SONY",
        "SAMSUNG",
        "CANON",
        "NIKON",
        "DSC",
        "DCIM",
        "CAMERA",
        "Exif_JPEG_PICTURE",
        "Exif JPEG",
        "JPEG",
        "IMAGE",
        "PHOTO",
        "PICTURE",
        "SCREENSHOT",
        "Default",
        "Untitled",
        "My beautiful picture",
        "Hisilicon Balong",
        "Created with GIMP",
        "Processed with VSCO",
        # Modes of Huawei's and Honor's phones.
        *"bty burst cof dav dig edf fbt fhdr hdr hdrpl jpeg mde nor norm oznor".split(),
        *"oznorhdr ptr qrf rbt rhdr sdr smart".split(),
    )
)
# Paths on the card, as of DJI and GoPro ("DCIM\100MEDIA\DJI_0012.JPG", "DCIM100MEDIA"),
# file names, names of filters, notes for programs (XML, JSON), and no letter at all.
_CAMERA_TEXT = re.compile(
    r"DCIM\W*\d{3}.*|\S+\.(?:jpe?g|png|tiff?|heic|dng|mp4)"
    r"|(?:processed|created|edited) with \S+(?: with \S+ preset)?"
    r"|(?:<[?!a-z]|\{|ImageJ=|METADATA-START).*|[\s\d!-/:-@\[-`{-~]*",
    re.IGNORECASE,
)


def is_camera_text(text):
    """Whether a camera or a program wrote this, and no person.

    Args:
        text: str, of a photo's metadata.

    Example:

    >>> is_camera_text("OLYMPUS DIGITAL CAMERA         ")
    True
    >>> is_camera_text("Anna with her digital camera")
    False
    """
    words = " ".join(text.split())
    return words.casefold() in CAMERA_TEXTS or bool(_CAMERA_TEXT.fullmatch(words))

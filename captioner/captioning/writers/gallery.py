"""All photos with their captions on one page that needs nothing else."""

import pathlib

from captioner.files import as_text
from captioner.images.thumbnail import JpegUri
from captioner.pages.page import write_page

_TEMPLATE = pathlib.Path(__file__).with_name("gallery.html")


def write_gallery(file, results, info):
    """One HTML file: small photos, captions, scores, a search box, and an order with
    the least likely captions first. It opens offline; nothing is loaded from anywhere.
    """
    # replace: a file name need not be valid text.
    with as_text(file, errors="replace") as text:
        write_page(
            text,
            _TEMPLATE,
            title="Captions",
            presets=", ".join(each["name"] for each in info.settings["preset"]),
            results=(_card(each, info.thumbnail(each.path)) for each in results),
        )


def _card(result, thumbnail):
    return {
        "path": result.path,
        "error": result.error,
        "caption": result.caption,
        "others": result.captions[1:],
        "score": result.score,
        "confidence": result.confidence,
        "photo": JpegUri(thumbnail) if thumbnail else None,
    }

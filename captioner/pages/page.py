"""HTML pages from templates: one file each, which opens offline.

A template extends `base.html`, which brings the style and the Content-Security-Policy.
The templates and assets that several pages share lie beside this file; a page's own
template lies beside the code that writes it.
"""

import functools
import pathlib

import jinja2

_SHARED = pathlib.Path(__file__).parent


def write_page(path, template, **context):
    """Writes a page, piece by piece: an iterator in `context` is never held in memory.

    Everything in `context` is escaped, except `markupsafe.Markup`.

    Args:
        path: of the file, which is replaced.
        template: path of the template.
        **context: what the template shows.

    Raises:
        OSError: the file cannot be written.

    Example:

    ```python
    write_page("hello.html", "captioner/pages/hello.html", title="Hello <world>")
    ```
    """
    template = pathlib.Path(template)
    stream = _environment(template.parent).get_template(template.name).stream(**context)
    stream.enable_buffering(64)
    # replace: a file name need not be valid text.
    stream.dump(str(path), encoding="utf-8", errors="replace")


@functools.cache
def _environment(folder):
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

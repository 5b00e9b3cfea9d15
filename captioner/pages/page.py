"""HTML pages from templates: one file each, which opens offline.

A template extends `base.html`, which brings the style and the Content-Security-Policy.
The templates and assets that several pages share lie beside this file; a page's own
template lies beside the code that writes it.
"""

import functools
import pathlib

import jinja2

_SHARED = pathlib.Path(__file__).parent


def write_page(file, template, **context):
    """Writes a page, piece by piece: an iterator in `context` is never held in memory.

    Everything in `context` is escaped, except `markupsafe.Markup`.

    Args:
        file: an open text file.
        template: path of the template.
        **context: what the template shows.

    Example:

    ```python
    with open("hello.html", "w", encoding="utf-8") as file:
        write_page(file, "templates/hello.html", title="Hello <world>")
    ```
    """
    template = pathlib.Path(template)
    stream = _environment(template.parent).get_template(template.name).stream(**context)
    stream.enable_buffering(64)
    stream.dump(file)


@functools.cache
def _environment(folder):
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

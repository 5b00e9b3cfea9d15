"""The documentation site: `python -m sphinx -W docs docs/_build` writes it."""

import importlib.metadata
import inspect
import re

project = "captioner"
author = "The captioner authors"
copyright = author
release = importlib.metadata.version("captioner")

extensions = [
    "myst_nb",  # Markdown pages and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # "Args:", "Returns:" and "Raises:" in docstrings
    "sphinx_click",  # the command line, from its own help
]
html_theme = "furo"
html_title = "captioner"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# The tests execute the notebooks; the site shows what they wrote.
nb_execution_mode = "off"
autodoc_member_order = "bysource"
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    ("Returned values", "params_style"),
]
napoleon_use_rtype = False


def as_restructured_text(app, what, name, object, options, lines):
    """Docstrings are Markdown, which Keras uses too; autodoc reads reStructuredText."""
    text = inspect.cleandoc("\n".join(lines))
    text = re.sub(
        r"^( *)```(\w*)\n(.*?)^ *```$",
        _code_block,
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(
        r"^( *)Returns:\n((?:\1    .*\n?)+)", _returns, text, flags=re.MULTILINE
    )
    # Code spans; the s of "`View`s" is text.
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", _literal, text)
    text = re.sub(r"(?:^ *\|.*\|\n?)+", _list_table, text, flags=re.MULTILINE)
    lines[:] = text.split("\n")


def _code_block(match):
    indent, language, body = match.groups()
    body = "\n".join(f"   {line}" for line in body.rstrip().split("\n"))
    return f"\n{indent}.. code-block:: {language or 'text'}\n\n{body}\n"


def _returns(match):
    """Several named values are like arguments; napoleon knows of one value only."""
    indent, body = match.groups()
    if len(re.findall(rf"^{indent}    \w+: ", body, re.MULTILINE)) < 2:
        return match[0]
    return f"{indent}Returned values:\n{body}"


def _literal(match):
    text = " ".join(match[1].split())
    return f"``{text}``" + ("\\ " if match[2] else "")


def _list_table(match):
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in match.group().rstrip("\n").split("\n")
    ]
    del rows[1]  # the dashes
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        marks = ["   * - "] + ["     - "] * (len(row) - 1)
        lines += [mark + cell for mark, cell in zip(marks, row)]
    return "\n".join([*lines, "", ""])


def escape_stars(app, ctx, lines):
    """In the help of a command, "*" is part of a file name, not emphasis."""
    lines[:] = [line.replace("*", "\\*") for line in lines]


def setup(app):
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape_stars)
    # Before napoleon, which takes what stands here for sections apart.
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)

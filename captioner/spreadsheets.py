"""CSV cells that a spreadsheet program would take for formulas."""

import re

# The first columns of a CSV that `captioner caption` writes.
COLUMNS = ("path", "caption", "score", "error", "kind")
# What Excel, LibreOffice and Google Sheets take for the beginning of a formula (OWASP,
# "CSV Injection"); after the apostrophes of texts that would look protected already.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def protect(text):
    """The cell for a text: one that begins like a formula gets an apostrophe before it.

    Example:

    >>> protect("=1+1"), protect("a dog")
    ("'=1+1", 'a dog')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unprotect(cell):
    """The text of a cell that `protect` has made.

    Example:

    >>> unprotect("'=1+1"), unprotect("'s")
    ('=1+1', "'s")
    """
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def unprotect_row(names, row):
    """A row of a CSV as it was before `protect`, if `captioner caption` wrote the CSV.

    Args:
        names: list of str, the columns in the header.
        row: list of str.

    Example:

    >>> unprotect_row(["path", "caption", "score", "error", "kind"], ["'-.jpg", "a"])
    ['-.jpg', 'a']
    """
    is_own = tuple(names[: len(COLUMNS)]) == COLUMNS
    return [unprotect(cell) for cell in row] if is_own else row

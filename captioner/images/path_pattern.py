"""Globs: paths with wildcards, as "photos/**/*.jpg"."""

import fnmatch
import glob
import os

from captioner.images.folder_walk import join, walk_folder


def matching_paths(pattern):
    """The paths that match a pattern, in no order.

    `*`, `?` and `[...]` are as in the shell, and `**` is any number of folders. Unlike
    Python's `glob`, `**` follows no links to other folders, since two of them that lead
    up have no end. A folder below `**` that cannot be read is among the paths.

    Args:
        pattern: str.

    Yields:
        str.

    Example:

    >>> len(list(matching_paths("data/**/*.jpg")))
    10
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    below = parts[place + 1 :]
    while below[:1] == ["**"]:
        below = below[1:]
    above = os.sep.join(parts[:place]) or (os.sep if place else os.curdir)
    for root in glob.iglob(above):
        if not os.path.isdir(root):
            continue
        if not below:
            yield root  # all that is in it
            continue
        skipped = len(join(root, "x")) - 1
        for visit in walk_folder(root, _matcher(below[-1])):
            relative = visit.folder[skipped:] if visit.folder != root else ""
            folders = relative.split(os.sep) if relative else []
            if visit.error is not None or folders and _match(folders, below):
                yield visit.folder
            for name in visit.names:
                if _match([*folders, name], below):
                    yield join(visit.folder, name)


def _matcher(part):
    return lambda name: part == "**" or fnmatch.fnmatchcase(name, part)


def _match(parts, pattern):
    """Whether the parts of a path, after any number of folders, match a pattern."""
    return any(_match_here(parts[at:], pattern) for at in range(len(parts)))


def _match_here(parts, pattern):
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return not pattern[1:] or _match(parts, pattern[1:])
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _match_here(parts[1:], pattern[1:])
    )

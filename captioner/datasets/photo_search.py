"""Finds the photos that a captions file names, wherever people unpack them.

All readers search in this one way.
"""

import collections
import os
import re
import unicodedata
import urllib.parse

from captioner.images.folder_walk import system_folder
from captioner.images.photo_suffixes import PHOTO_SUFFIXES

# The names by which datasets call their splits. Karpathy's "restval" is the
# part of COCO's validation photos that everybody trains on.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}
# So many image names tell which folder they are relative to.
_NUM_PROBES = 200
# A captions file may lie in a folder that has the whole disk below it.
_MAX_FOLDERS = 2000
_DEPTH = 3  # of the files: two levels of folders and one in the image's own name
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]+://")
# Label Studio puts eight digits before the name of a file that is uploaded to it.
_UPLOAD = re.compile(r"/upload/.*/[0-9a-f]{8}-([^/]+)\Z")


def canonical_split(name):
    """Maps a dataset's own name of a split to `"train"`, `"dev"` or `"test"`.

    Returns:
        str, or None if the name is none of the usual ones.
    """
    return SPLIT_NAMES.get(str(name).strip().lower())


def folder_split(name):
    """The split that the name of a folder says: `"train2017"` is train.

    Returns:
        str, or None if it says none.
    """
    word = re.match(r"([a-z]+)(?:[\s\d_.-]|\Z)", name.lower())
    return SPLIT_NAMES.get(word.group(1)) if word else None


class FolderListing:
    """Answers "is there such a file" by listing each folder only once."""

    def __init__(self):
        self._folders = {}

    def files(self, folder) -> frozenset:
        """Names of the files of a folder; empty if there is no such folder."""
        return self._list(folder)[0]

    def folders(self, folder) -> list:
        """Sorted paths of the visible sub folders of a folder."""
        return self._list(folder)[1]

    def __contains__(self, path):
        folder, name = os.path.split(path)
        return name in self.files(folder)

    def _list(self, folder):
        if folder not in self._folders:
            files, folders = [], []
            try:
                with os.scandir(folder or ".") as entries:
                    for entry in entries:
                        if entry.is_dir():
                            if not entry.name.startswith("."):
                                # Not entry.path, which begins with "./" in ".".
                                folders.append(os.path.join(folder, entry.name))
                        elif entry.is_file():
                            files.append(entry.name)
            except (OSError, ValueError):
                # Absent or not ours to read: either way it holds no image, and
                # the images that were expected in it are reported one by one.
                pass
            self._folders[folder] = (frozenset(files), sorted(folders))
        return self._folders[folder]


class PhotoSearch:
    """Finds photos below some folders by the names that a captions file has.

    A name is relative to one of the folders, or to a folder up to two levels below it,
    whichever holds most of the names; a folder that is called as the split of the image
    is preferred. A name that is found nowhere is tried with the other separator, in the
    other Unicode normal form, in the other case, and, if it has no suffix, with the
    suffix of a photo. An absolute name, as of another computer, and every name where
    the user has named the folder, is also tried without its first folders; such a
    photo must be the only one of its name.

    Args:
        bases: list of str. The folders, the first of which is the likeliest.
        folder_given: bool. Whether the user has named the folder.
        listing: a `FolderListing`.

    Attributes:
        notes: list of str. What the user should know of how photos were found.
    """

    def __init__(self, bases, folder_given=False, listing=None):
        self.bases = list(dict.fromkeys(map(os.path.normpath, bases)))
        self.folder_given = folder_given
        self.listing = FolderListing() if listing is None else listing
        self.notes = []
        self._tried = self.bases
        self._index = None

    def locate(self, names) -> dict:
        """Finds the photos of names.

        Args:
            names: dict of name to the split of the image (str or None).

        Returns:
            dict of name to path. A name that is found nowhere is absent.
        """
        probes = list(names)[:: max(1, len(names) // _NUM_PROBES)][:_NUM_PROBES]
        base = self.bases[0]
        found = {}
        # The rule, and it spares listing folders that are none of ours.
        if all(self._exact(base, name) for name in probes):
            found = {name: self._exact(base, name) for name in names}
        missing = {name: names[name] for name in names if not found.get(name)}
        if missing:
            self._build_index()
            self._search(missing, [n for n in probes if n in missing], found)
        return {name: path for name, path in found.items() if path}

    def where(self):
        """Where photos were looked for, as words of a message."""
        shown = ", ".join(map(str, self._tried[:4]))
        more = len(self._tried) - 4
        return shown + (f" and {more} more folders" if more > 0 else "")

    def _exact(self, folder, name):
        path = os.path.normpath(os.path.join(folder, name))
        return path if path in self.listing else None

    def _build_index(self):
        self._index = collections.defaultdict(list)
        level, folders = self.bases, {}
        for depth in range(_DEPTH + 1):
            folders.update(dict.fromkeys(level[: _MAX_FOLDERS - len(folders)], depth))
            level = [
                child for folder in level for child in self.listing.folders(folder)
            ]
            level = [c for c in level if c not in folders and not system_folder(c)]
            if len(folders) >= _MAX_FOLDERS:
                self.notes.append(
                    f"photos were looked for in the first {_MAX_FOLDERS:,} folders only"
                )
                break
        self._tried = [folder for folder, depth in folders.items() if depth < _DEPTH]
        for folder in folders:
            for file in self.listing.files(folder):
                stem, suffix = os.path.splitext(file)
                path = os.path.normpath(os.path.join(folder, file))
                self._index[_fold(file)].append(path)
                if suffix.lower() in PHOTO_SUFFIXES and _fold(stem) != _fold(file):
                    self._index[_fold(stem)].append(path)

    def _search(self, missing, probes, found):
        """Adds the missing names that are found to `found`."""
        counts = collections.Counter()
        for name in probes:
            counts.update({root for _, root, _ in self._options(name)})
        by_end, several = collections.defaultdict(list), []
        for name, split in missing.items():
            options = self._options(name)
            if len(options) > 1:

                def rank(option):
                    path, root, exact = option
                    in_split = split is not None and split == self._split_of(path)
                    return exact, in_split, counts[root], -path.count(os.sep)

                options.sort(key=rank, reverse=True)
                if rank(options[0])[:2] == rank(options[1])[:2]:
                    several.append(name)
            if options:
                found[name] = options[0][0]
                continue
            found[name] = self._exact(self.bases[0], name)
            if found[name] is None and (self.folder_given or _ABSOLUTE.match(name)):
                path = self._by_end(name)
                if path is not None:
                    by_end[path].append(name)
        taken, used, unused = set(found.values()), [], []
        for path, same in by_end.items():
            if len(same) == 1 and path not in taken:
                found[same[0]] = path
                used.append(path)
            else:
                unused += [(name, path) for name in same]
        if unused:
            name, path = unused[0]
            self.notes.append(
                f"not found, since their files have the names of several images: "
                f"{len(unused)} images, such as {name}, which may be {path}"
            )
        if used:
            self.notes.append(
                f"found by the end of their paths: {len(used)} images, such as "
                f"{used[0]}"
            )
        if several:
            self.notes.append(
                f"in several folders: {len(several)} images, such as {several[0]}; "
                f"used: {found[several[0]]}"
            )

    def _options(self, name):
        """Files that have the whole name, as (path, folder above it, exactly so)."""
        if _ABSOLUTE.match(name):
            return []
        options = []
        parts = _parts(name)
        folded = [_fold(part) for part in parts]
        if not parts or ".." in parts:
            return []
        for path in self._index.get(folded[-1], ()):
            *folders, file = path.split(os.sep)
            above = folders[len(folders) - len(parts) + 1 :]
            if len(above) == len(parts) - 1 and list(map(_fold, above)) == folded[:-1]:
                exact = above == parts[:-1] and file == parts[-1]
                root = os.sep.join(folders[: len(folders) - len(above)])
                options.append((path, root, exact))
        # Two files whose names differ in case only: either may be meant.
        if len(options) > 1 and not any(exact for _, _, exact in options):
            roots = [root for _, root, _ in options]
            options = [o for o in options if roots.count(o[1]) == 1]
        return options

    def _by_end(self, name):
        """The only file that shares the longest end of a name, or None."""
        names = [name]
        if (url := urllib.parse.urlsplit(name)).query:  # Label Studio's local files
            names = urllib.parse.parse_qs(url.query).get("d", []) + names
        names += [urllib.parse.unquote(each) for each in names if "%" in each]
        upload = _UPLOAD.search(name)
        names += [upload.group(1)] if upload else []
        for each in names:
            parts = [_fold(part) for part in _parts(each)]
            paths = self._index.get(parts[-1], ()) if parts else ()
            common = [_common_end(parts, path) for path in paths]
            if common and common.count(max(common)) == 1:
                return paths[common.index(max(common))]
        return None

    def _split_of(self, path):
        for base in self.bases:
            below = os.path.relpath(os.path.dirname(path), base).split(os.sep)
            if below[0] != os.pardir:
                return next(filter(None, map(folder_split, reversed(below))), None)
        return None


def _parts(name):
    """The names in a path of any system, without "." and what stands before them."""
    name = re.sub(r"\A[A-Za-z][A-Za-z0-9+.-]+://[^/]*", "", name)
    name = re.sub(r"\A[A-Za-z]:[/\\]", "", name)
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def _fold(name):
    return unicodedata.normalize("NFC", name).casefold()


def _common_end(parts, path):
    """How many names two paths have in common, from the end; the file name does."""
    count = 1
    for one, other in zip(parts[-2::-1], path.split(os.sep)[-2::-1]):
        if one != _fold(other):
            break
        count += 1
    return count

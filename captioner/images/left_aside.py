"""Files that a run meets and does not caption, counted by their suffix."""

import collections
import os

# Files that a run writes, or that hold captions: they are expected beside photos.
CAPTION_SUFFIXES = frozenset(
    ".txt .caption .xmp .csv .tsv .json .jsonl .parquet .html "
    ".sqlite .sqlite-wal .sqlite-shm".split()
)
NO_SUFFIX = "without a suffix"
LINKED_FOLDERS = "linked folder(s)"
OTHERS = "others"
MAX_SUFFIXES = 100  # any further ones are counted together
MAX_SUFFIX_LENGTH = 16


class LeftAside:
    """Counts files that are not photos, so that none is passed over in silence.

    Hidden files and those that hold captions do not count.

    Args:
        caption_suffixes: suffixes of further files that hold captions.

    Example:

    >>> left_aside = LeftAside()
    >>> for name in ("a.cr2", "b.CR2", "b.txt", "c.mp4"):
    ...     left_aside.add(name)
    >>> str(left_aside)
    '2 .cr2, 1 .mp4'
    """

    def __init__(self, caption_suffixes=()):
        self._expected = CAPTION_SUFFIXES.union(map(str.lower, caption_suffixes))
        self._counts = collections.Counter()

    def add(self, name):
        """Counts a file by the suffix of its name."""
        suffix = os.path.splitext(name)[1].lower()
        if not name.startswith(".") and suffix not in self._expected:
            self._count(suffix or NO_SUFFIX)

    def add_linked_folder(self):
        """Counts a link to a folder, which is not followed."""
        self._count(LINKED_FOLDERS)

    def _count(self, key):
        # Names may come from an archive: whatever they are, a few are kept.
        is_known = key in self._counts or len(self._counts) < MAX_SUFFIXES
        is_plain = key.isprintable() and len(key) <= MAX_SUFFIX_LENGTH
        self._counts[key if is_known and is_plain else OTHERS] += 1

    def counts(self):
        """dict of suffix to number of files, the most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def __str__(self):
        return ", ".join(f"{number:,} {key}" for key, number in self.counts().items())

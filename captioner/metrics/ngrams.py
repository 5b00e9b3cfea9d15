"""The n-grams of captions as sorted integer arrays, which BLEU and CIDEr share.

Every n-gram of the references has a number. Those of a batch of candidates are found
by binary search and joined with the references of their image in a few NumPy calls,
without a Python loop over words.
"""

import collections
import dataclasses
import itertools

import numpy as np

MAX_ORDER = 4
# An n-gram is looked up as the number of its first n - 1 tokens, and its last token.
_TOKEN_BITS = 31


@dataclasses.dataclass(frozen=True)
class NgramCounts:
    """The n-grams of some captions, a row for each that a caption has.

    Attributes:
        lengths: int (C,), the tokens of each caption.
        caption: int (R,), which caption.
        ngram: int (R,), its number: equal for equal n-grams.
        order: int (R,), 0 for single tokens to 3.
        count: int (R,), how often the caption has it, 1 or more.
    """

    lengths: np.ndarray
    caption: np.ndarray
    ngram: np.ndarray
    order: np.ndarray
    count: np.ndarray


class ReferenceNgrams:
    """The references of a corpus, counted once, for `Bleu`, `Cider` and `CiderD`.

    Args:
        references: for each image, the list of its references (one or more), each a
            list of tokens: str, or ints such as token ids.

    Raises:
        ValueError: an image has no reference.

    Example:

    >>> ngrams = ReferenceNgrams([[["a", "dog"]], [["two", "cats"], ["cats"]]])
    >>> ngrams.num_images, ngrams.num_references.tolist()
    (2, [1, 2])
    """

    def __init__(self, references):
        self.num_references = np.array([len(captions) for captions in references], int)
        without = np.flatnonzero(self.num_references == 0)
        if without.size:
            raise ValueError(
                "Each image must have one reference or more. "
                f"Received: references[{without[0]}]=[]"
            )
        self.num_images = len(self.num_references)
        self.first_reference = np.cumsum(self.num_references) - self.num_references
        self._token_ids = {}
        self._tables = []  # for each order from 2, the sorted keys of its n-grams
        image = np.repeat(np.arange(self.num_images), self.num_references)
        within = np.arange(image.size) - self.first_reference[image]
        lengths, caption, ngram = self._number(
            list(itertools.chain.from_iterable(references)), learn=True
        )
        # Not every number is that of an n-gram.
        self.num_ngrams = int(ngram.max(initial=-1)) + 1
        self._bits = self.num_ngrams.bit_length()
        # Sorted by image, n-gram and reference: what an image has stands together.
        # Shifts, since divisions of whole arrays take longer than all else here.
        bits = int(self.num_references.max(initial=1)).bit_length()
        rows = (image << self._bits + bits | within)[caption]
        ngram <<= bits
        rows |= ngram
        rows, count = _sort_and_count(rows)
        keys, within = rows >> bits, rows & (1 << bits) - 1
        ngram = keys & (1 << self._bits) - 1
        self.counts = NgramCounts(
            lengths,
            self.first_reference[keys >> self._bits] + within,
            ngram,
            ngram % MAX_ORDER,
            count,
        )
        self._starts = _starts(keys)
        self._ends = np.append(self._starts[1:], keys.size)
        self._keys = keys[self._starts]

    @classmethod
    def of(cls, references):
        """The n-grams of references that may have been counted before."""
        return references if isinstance(references, cls) else cls(references)

    def document_frequencies(self):
        """int (num_ngrams,): in the references of how many images each n-gram is."""
        ngram = self._keys & (1 << self._bits) - 1
        return np.bincount(ngram, minlength=self.num_ngrams)

    def largest_counts(self):
        """int, a number for each n-gram of each image: the highest count in any one
        of its references. `join` gives the indices."""
        if not self._starts.size:  # which `reduceat` cannot do
            return np.zeros(0, int)
        return np.maximum.reduceat(self.counts.count, self._starts)

    def count(self, candidates):
        """Counts the n-grams of captions; those of no reference get further numbers.

        Args:
            candidates: list of lists of tokens; or what this returned for them.

        Returns:
            `NgramCounts`.
        """
        if isinstance(candidates, NgramCounts):
            return candidates
        lengths, caption, ngram = self._number(candidates, learn=False)
        bits = int(ngram.max(initial=0)).bit_length()
        keys, count = _sort_and_count(caption << bits | ngram)
        ngram = keys & (1 << bits) - 1
        return NgramCounts(lengths, keys >> bits, ngram, ngram % MAX_ORDER, count)

    def join(self, counts, images):
        """Finds the n-grams that candidates share with the references of an image.

        Args:
            counts: the `NgramCounts` of C candidates.
            images: int (C,), the image of each candidate.

        Returns:
            Two int arrays (S,): rows of `counts` that some reference of the image
            has, and where in `largest_counts()` they stand.
        """
        rows = np.flatnonzero(counts.ngram < self.num_ngrams)
        keys = images[counts.caption[rows]] << self._bits | counts.ngram[rows]
        places, found = _find(self._keys, keys)
        return rows[found], places[found]

    def spread(self, places):
        """The rows of the references' `counts` behind what `join` found.

        Args:
            places: int (S,), as `join` returns them.

        Returns:
            Two int arrays (T,): an index into `places`, and a row of `counts`; one
            pair for each reference that has the n-gram.
        """
        sizes = self._ends[places] - self._starts[places]
        index = np.repeat(np.arange(places.size), sizes)
        within = np.arange(index.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return index, self._starts[places][index] + within

    def _number(self, captions, learn):
        """The length of each caption; and for each n-gram, as often as it occurs,
        its caption and its number."""
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        tokens = self._token_numbers(
            list(itertools.chain.from_iterable(captions)), learn
        )
        # At each token: its caption, and how many tokens come from here to its end.
        caption = np.repeat(np.arange(lengths.size), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(tokens.size)
        number = tokens  # of the n-gram that begins at each token, where it ends too
        captions_of, ngrams = [caption], [tokens * MAX_ORDER]
        for order in range(1, MAX_ORDER):
            begins = np.flatnonzero(left > order)
            keys = number[begins] << _TOKEN_BITS | tokens[begins + order]
            if learn:
                table, found = np.unique(keys, return_inverse=True)
                self._tables.append(table)
            else:
                table = self._tables[order - 1]
                found, known = _find(table, keys)
                _, new = np.unique(keys[~known], return_inverse=True)
                found[~known] = table.size + new
            number = np.zeros_like(tokens)
            number[begins] = found
            captions_of.append(caption[begins])
            ngrams.append(found * MAX_ORDER + order)
        return lengths, np.concatenate(captions_of), np.concatenate(ngrams)

    def _token_numbers(self, tokens, learn):
        ids = self._token_ids
        if learn:  # whatever is looked up gets the next number
            ids = collections.defaultdict(itertools.count().__next__)
            numbers = np.fromiter(map(ids.__getitem__, tokens), np.int64, len(tokens))
            self._token_ids = dict(ids)
            return numbers
        if not ids.keys() >= set(tokens):
            unknown = [token for token in dict.fromkeys(tokens) if token not in ids]
            ids = {**ids, **dict(zip(unknown, itertools.count(len(ids))))}
        return np.fromiter(map(ids.__getitem__, tokens), np.int64, len(tokens))


def _starts(values):
    """Where in a sorted array each new value begins."""
    new = np.ones(values.size, bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return np.flatnonzero(new)


def _sort_and_count(values):
    """The different values, rising, and how often each occurs; `np.unique` copies
    more on the way. Sorts `values` in place."""
    values.sort()
    starts = _starts(values)
    return values[starts], np.diff(starts, append=values.size)


def _find(table, keys):
    """Where keys stand in a sorted table, and which of them are there."""
    places = np.searchsorted(table, keys)
    found = places < table.size
    found[found] = table[places[found]] == keys[found]
    return places, found

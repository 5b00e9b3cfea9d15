"""Caption text to token ids and back, word by word, with TensorFlow's own ops."""

import collections
import pathlib

import numpy as np
import tensorflow as tf

VOCABULARY_FILE = "vocabulary.txt"
PAD, START, END, UNKNOWN = "[PAD]", "[START]", "[END]", "[UNK]"
SPECIAL_TOKENS = (PAD, START, END, UNKNOWN)


class Tokenizer:
    """A word-level tokenizer.

    Text is lower-cased, and what is neither letter nor digit separates words
    (apostrophes and hyphens inside a word stay: "isn't", "t-shirt"); the ending
    "'s" is a word of its own. Text of that form whose words are all known comes
    back exactly from `detokenize(tokenize(text))`.

    Words rather than subwords because captions are short and plain: they keep the
    sequences as short as they can be, so that decoding takes the fewest steps, and
    every word that is written was seen in training.

    Args:
        vocabulary: list of str, special tokens first (see `SPECIAL_TOKENS`).

    Attributes:
        pad_id, start_id, end_id, unknown_id: int.

    Raises:
        ValueError: the special tokens are not in front, or a word is there twice.

    Example:

    >>> tokenizer = Tokenizer.from_captions(["A dog runs.", "A dog's ball"])
    >>> tokenizer.detokenize(tokenizer.tokenize(["A dog's dog"])).numpy()
    array([b"a dog's dog"], dtype=object)
    """

    def __init__(self, vocabulary):
        vocabulary = list(vocabulary)
        if tuple(vocabulary[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            raise ValueError(
                f"The vocabulary must start with {SPECIAL_TOKENS}. "
                f"Received: {vocabulary[:len(SPECIAL_TOKENS)]}"
            )
        twice = [w for w, n in collections.Counter(vocabulary).items() if n > 1]
        if twice:
            raise ValueError(f"The vocabulary has words twice. Received: {twice[:5]}")
        self.vocabulary = vocabulary
        self.pad_id, self.start_id, self.end_id, self.unknown_id = range(4)
        self._id_of = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(vocabulary),
                tf.range(len(vocabulary), dtype=tf.int32),
            ),
            default_value=self.unknown_id,
        )

    def __reduce__(self):
        return type(self), (self.vocabulary,)  # to pickle and to copy

    @classmethod
    def from_captions(cls, captions, min_count=1):
        """Learn the vocabulary: every word seen `min_count` times or more.

        Give it the captions of the training split only. The words are ordered by
        count, then alphabetically, so that the same captions in any order give
        the same ids.
        """
        return cls.from_counts(cls.count_words(captions), min_count)

    @classmethod
    def from_counts(cls, counts, min_count=1):
        """As `from_captions`, from what `count_words` has counted."""
        return cls([*SPECIAL_TOKENS, *frequent_words(counts, min_count)])

    @staticmethod
    def count_words(captions):
        """How often each word occurs in an iterable of captions: a `Counter`.

        Example:

        >>> Tokenizer.count_words(["A dog.", "a cat"])["a"]
        2
        """
        counts = collections.Counter()
        captions = list(captions)
        for start in range(0, len(captions), 10_000):
            words = _split(captions[start : start + 10_000]).flat_values.numpy()
            counts.update(words.tolist())
        return collections.Counter({word.decode(): n for word, n in counts.items()})

    def with_words(self, words):
        """This tokenizer with more words after its own, whose ids stay as they are.

        Args:
            words: list of str. Those that are in the vocabulary are left out.

        Example:

        >>> tokenizer = Tokenizer.from_captions(["a dog"])
        >>> tokenizer.with_words(["cat", "dog"]).vocabulary[4:]
        ['a', 'dog', 'cat']
        """
        known = set(self.vocabulary)
        return type(self)([*self.vocabulary, *(w for w in words if w not in known)])

    @property
    def vocabulary_size(self):
        """How many ids there are, the special ones included."""
        return len(self.vocabulary)

    def tokenize(self, texts):
        """Strings (N,) -> int32 `tf.RaggedTensor` (N, words), no start, no end."""
        return tf.ragged.map_flat_values(self._id_of.lookup, _split(texts))

    def detokenize(self, token_ids):
        """int (..., L), dense or ragged -> strings (...).

        Reads up to the first end token and leaves out start and padding.
        """
        if isinstance(token_ids, tf.RaggedTensor):
            token_ids = token_ids.to_tensor(self.pad_id)
        token_ids = tf.convert_to_tensor(token_ids)
        ended = tf.cumsum(tf.cast(token_ids == self.end_id, tf.int32), axis=-1) > 0
        silent = ended | (token_ids == self.pad_id) | (token_ids == self.start_id)
        words = tf.gather(tf.constant(self.vocabulary), token_ids)
        # Each word brings its own space, so that silent ones leave no trace.
        words = tf.where(silent, "", tf.strings.join([" ", words]))
        text = tf.strings.reduce_join(words, axis=-1)
        return tf.strings.strip(tf.strings.regex_replace(text, r" ('s)\b", r"\1"))

    def unknown_rate(self, captions):
        """The share of these captions' words that are not in the vocabulary."""
        token_ids = self.tokenize(list(captions)).flat_values.numpy()
        return float(np.mean(token_ids == self.unknown_id)) if len(token_ids) else 0.0

    def save_assets(self, folder):
        """Write the vocabulary into a preset's `assets` folder."""
        text = "".join(f"{word}\n" for word in self.vocabulary)
        (pathlib.Path(folder) / VOCABULARY_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_assets(cls, folder):
        """Read the vocabulary from a preset's `assets` folder."""
        path = pathlib.Path(folder) / VOCABULARY_FILE
        return cls(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))


def frequent_words(counts, min_count):
    """The words of a `Counter` that occur `min_count` times or more, the most frequent
    first, and in alphabetical order where they are equally frequent."""
    return sorted(
        (word for word, count in counts.items() if count >= min_count),
        key=lambda word: (-counts[word], word),
    )


def _split(texts):
    """Strings (N,) -> `tf.RaggedTensor` (N, words)."""
    texts = tf.strings.lower(tf.convert_to_tensor(texts, tf.string), encoding="utf-8")
    texts = tf.strings.regex_replace(texts, "\u2019", "'")
    texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{M}\p{N}'-]+", " ")
    # "@" can no longer occur: it keeps the ending "'s" while other apostrophes and
    # dashes that are not inside a word go.
    texts = tf.strings.regex_replace(texts, "['-]+( |$)", " ")
    texts = tf.strings.regex_replace(texts, "['-]*'s( |$)", " @ ")
    texts = tf.strings.regex_replace(texts, "(^| )['-]+", " ")
    texts = tf.strings.regex_replace(texts, "@", "'s")
    return tf.strings.split(texts)

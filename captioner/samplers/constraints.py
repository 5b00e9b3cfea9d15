"""Constraints on captions: in words, and as TensorFlow ops on token ids."""

import dataclasses
import itertools
import math
import numbers

import numpy as np
import tensorflow as tf

BANNED = -1.0  # the "probability" of a banned token: less than any real one
# Limits that no real use reaches and that fit in memory.
MAX_LENGTH = 1_024
MAX_TEXTS = 10_000
MAX_WORDS = 16


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What every caption must satisfy, whichever sampler generates it.

    Constraints are applied inside the graph, before a token is chosen. If they leave no
    token to choose, the caption is the best one that was finished before, or else the
    words so far, and its `finish_reason` is "constraints".

    Args:
        min_length, max_length: minimum and maximum number of tokens, including the end
            token; by default 1 and the preprocessor's `max_sequence_length`.
        no_repeat_ngram_size: never repeat an n-gram of this size; 0 for no such rule.
        repetition_penalty: values above 1 make repeated words less likely, by
            the rule of CTRL (Keskar et al., 2019): their positive logits are divided
            by it and their negative logits are multiplied by it. Probabilities and
            scores are those after this change.
        banned: words and phrases that are never used.
        prefix: text that every caption begins with, such as "a photo of".
        bad_endings: words and phrases that no caption ends with, such as "a" or "of
            the".

    Raises:
        ValueError: a value is out of range, or two of them exclude each other.

    Example:

    ```python
    constraints = Constraints(prefix="a photo of", no_repeat_ngram_size=2)
    captioner.compile(sampler=BeamSampler(5, constraints=constraints))
    captioner.generate("photo.jpg")
    ```
    """

    min_length: int = 1
    max_length: int | None = None
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    banned: tuple[str, ...] = ()
    prefix: str = ""
    bad_endings: tuple[str, ...] = ()

    def __post_init__(self):
        for name, least, most in (
            ("min_length", 1, MAX_LENGTH),
            ("max_length", 1, MAX_LENGTH),
            ("no_repeat_ngram_size", 0, MAX_LENGTH),
        ):
            value = getattr(self, name)
            if name == "max_length" and value is None:
                continue
            check_number(name, value, least, most, numbers.Integral)
            object.__setattr__(self, name, int(value))
        check_number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        if self.max_length is not None and self.min_length > self.max_length:
            raise ValueError(
                "min_length must not be above max_length. Received: "
                f"min_length={self.min_length}, max_length={self.max_length}"
            )
        for name in ("banned", "bad_endings"):
            texts = getattr(self, name)
            if not isinstance(texts, (list, tuple)) or not all(
                isinstance(text, str) for text in texts
            ):
                raise ValueError(
                    f"{name} must be a list of words and phrases. "
                    f"Received: {name}={texts!r}"
                )
            if len(texts) > MAX_TEXTS:
                raise ValueError(
                    f"{name} must be {MAX_TEXTS} texts at most. "
                    f"Received: len({name})={len(texts)}"
                )
            object.__setattr__(self, name, tuple(texts))
        if not isinstance(self.prefix, str):
            raise ValueError(f"prefix must be a str. Received: prefix={self.prefix!r}")

    def get_config(self):
        """The arguments that are not at their defaults, as JSON has them."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def token_rules(self, tokenizer, max_sequence_length):
        """These constraints in token ids.

        Args:
            tokenizer: a `Tokenizer`.
            max_sequence_length: the maximum length if `max_length` is None.

        Raises:
            ValueError: a word is not in the vocabulary, or is banned and in the
                prefix; the prefix or `min_length` does not fit.
        """
        max_length = self.max_length or max_sequence_length
        if self.min_length > max_length:
            raise ValueError(
                "min_length must not be above the preset's max_sequence_length, "
                f"{max_length}. Received: min_length={self.min_length}"
            )

        def ids_of(name, text):
            ids = tuple(tokenizer.tokenize([text]).flat_values.numpy().tolist())
            if not ids or tokenizer.unknown_id in ids:
                what = "has no words" if not ids else "is not in the vocabulary"
                raise ValueError(f"A text of {name} {what}. Received: {name}={text!r}")
            if name != "prefix" and len(ids) > MAX_WORDS:
                raise ValueError(
                    f"A text of {name} must be {MAX_WORDS} words at most. "
                    f"Received: {name}={text!r}"
                )
            return ids

        prefix = ids_of("prefix", self.prefix) if self.prefix else ()
        if len(prefix) >= max_length:
            raise ValueError(
                f"prefix must be shorter than max_length, {max_length} tokens. "
                f"Received: prefix={self.prefix!r}"
            )
        banned = [ids_of("banned", text) for text in self.banned]
        for text, ids in zip(self.banned, banned):
            if ids in _ngrams(prefix, len(ids)):
                raise ValueError(
                    "prefix must not contain banned text. "
                    f"Received: banned={text!r}, prefix={self.prefix!r}"
                )
        size = self.no_repeat_ngram_size
        ngrams = _ngrams(prefix, size) if size else []
        if len(set(ngrams)) < len(ngrams):
            raise ValueError(
                "prefix must not repeat an n-gram of no_repeat_ngram_size words. "
                f"Received: no_repeat_ngram_size={size}, prefix={self.prefix!r}"
            )
        return TokenRules(
            max_length=max_length,
            start_id=tokenizer.start_id,
            end_id=tokenizer.end_id,
            pad_id=tokenizer.pad_id,
            banned=((tokenizer.unknown_id,), *banned),
            min_length=self.min_length,
            no_repeat_ngram_size=size,
            repetition_penalty=self.repetition_penalty,
            prefix=prefix,
            bad_endings=tuple(ids_of("bad_endings", t) for t in self.bad_endings),
        )


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """`Constraints` in token ids; what a sampler's loop asks at each step.

    Args:
        max_length: L, the most tokens, the end token included.
        start_id, end_id, pad_id: int. Neither start nor padding is ever written.
        banned, bad_endings: tuples of phrases, each a tuple of ids.
        prefix: tuple of ids.
        min_length, no_repeat_ngram_size, repetition_penalty: see `Constraints`.
    """

    max_length: int
    start_id: int
    end_id: int
    pad_id: int
    banned: tuple = ()
    min_length: int = 1
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    prefix: tuple = ()
    bad_endings: tuple = ()

    def probabilities(self, logits, token_ids, index):
        """The probabilities of the next token of each caption.

        Args:
            logits: (N, V), of the next token.
            token_ids: int32 (N, L), the tokens before `index`.
            index: int32, may be a tensor.

        Returns:
            Probabilities, float32 (N, V), and `BANNED` for tokens that are not allowed;
            the others are not rescaled to sum to 1.
        """
        logits = tf.cast(logits, tf.float32)
        if self.repetition_penalty != 1:
            logits = self._penalise(logits, token_ids, index)
        # Rather than log-probabilities: of these only the chosen ones are needed.
        found = tf.nn.softmax(logits)
        words = np.arange(logits.shape[-1])
        never = [phrase[0] for phrase in self.banned if len(phrase) == 1]
        free = ~np.isin(words, [self.start_id, self.pad_id, *never])
        if self.prefix:
            last = len(self.prefix) - 1
            wanted = tf.gather(tf.constant(self.prefix), tf.minimum(index, last))
            free = free & ((index > last) | (words == wanted))
        found = tf.where(free, found, BANNED)
        bans = [*self._bans(token_ids, index)]
        if bans:
            ids, hits = (tf.concat(each, axis=1) for each in zip(*bans))
            # 2 leaves a probability as it is.
            hits = tf.where(hits, BANNED, 2.0)
            found = tf.tensor_scatter_nd_min(found, cells(ids), hits)
        return found

    def good_lengths(self, token_ids, lengths):
        """The lengths to which unfinished captions are cut so that they have no bad
        ending: int32 (N, L), (N,) -> (N,). The prefix is kept."""
        L = self.max_length
        ends = tf.range(L + 1)
        good = ends <= lengths[:, None]
        for phrases in _by_length(self.bad_endings):
            size = phrases.shape[1]
            if size > L:
                continue
            windows = tf.stack(
                [token_ids[:, i : L - size + 1 + i] for i in range(size)], axis=-1
            )
            bad = tf.reduce_all(windows[:, :, None] == phrases, axis=-1)
            bad = tf.pad(tf.reduce_any(bad, axis=-1), [[0, 0], [size, 0]])
            good &= ~bad | (ends <= len(self.prefix))
        return tf.reduce_max(tf.where(good, ends, 0), axis=1)

    def _penalise(self, logits, token_ids, index):
        before = tf.gather(logits, token_ids, axis=1, batch_dims=1)
        penalty = self.repetition_penalty
        after = tf.where(before > 0, before / penalty, before * penalty)
        written = tf.range(self.max_length) < index
        return tf.tensor_scatter_nd_update(
            logits, cells(token_ids), tf.where(written, after, before)
        )

    def _bans(self, token_ids, index):
        """What depends on the place and the words so far: pairs of ids and whether
        they are banned, int32 and bool (N, M)."""
        N, L = tf.shape(token_ids)[0], self.max_length

        def pair(ids, hits):
            return tf.broadcast_to(ids, tf.shape(hits)), hits

        if self.min_length > 1:
            yield pair(self.end_id, tf.fill([N, 1], index + 1 < self.min_length))
        for phrases in _by_length(p for p in self.banned if len(p) > 1):
            yield pair(phrases[:, -1], _just_written(phrases[:, :-1], token_ids, index))
        for phrases in _by_length(self.bad_endings):
            ended_badly = _just_written(phrases, token_ids, index)
            ended_badly = tf.reduce_any(ended_badly, axis=1, keepdims=True)
            yield pair(self.end_id, ended_badly)
            # The last word of a caption that has no room for its end token.
            begun = _just_written(phrases[:, :-1], token_ids, index)
            yield pair(phrases[:, -1], begun & (index == L - 1))
        size = self.no_repeat_ngram_size
        if 0 < size < L:
            last = _last_tokens(token_ids, index, size - 1)
            # One for each place where an n-gram may have been completed.
            again = tf.range(size - 1, L) < index
            for i in range(size - 1):
                again = again & (token_ids[:, i : L - size + 1 + i] == last[:, i, None])
            ids = token_ids[:, size - 1 :]
            yield ids, tf.broadcast_to(again, tf.shape(ids))


def check_number(name, value, least, most, kind=numbers.Real):
    """Raise a ValueError unless a number is one of its kind and in its range."""
    # A bool is a number to Python; nan is in no range.
    if isinstance(value, bool) or not isinstance(value, kind):
        what = "a whole number" if kind is numbers.Integral else "a number"
        raise ValueError(f"{name} must be {what}. Received: {name}={value!r}")
    if not least <= value <= most:
        bounds = (
            f"{least} or more, and finite" if most == FINITE else f"{least} to {most}"
        )
        raise ValueError(f"{name} must be {bounds}. Received: {name}={value}")


FINITE = math.nextafter(math.inf, 0)


def _ngrams(ids, size):
    return [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]


def _by_length(phrases):
    """Phrases as int32 arrays (M, length), one for each length."""
    phrases = sorted(phrases, key=len)
    for _, same in itertools.groupby(phrases, key=len):
        yield np.array([*same], "int32")


def _last_tokens(token_ids, index, number):
    """The `number` tokens before `index`, (N, number); -1 where there was none yet."""
    places = index - number + tf.range(number)
    tokens = tf.gather(token_ids, tf.maximum(places, 0), axis=1)
    return tf.where(places >= 0, tokens, -1)


def _just_written(phrases, token_ids, index):
    """Whether each phrase (M, length) is what comes before `index`: bool (N, M)."""
    last = _last_tokens(token_ids, index, phrases.shape[1])
    return tf.reduce_all(last[:, None] == phrases, axis=-1)


def cells(ids):
    """Ids (N, M) as the places of a matrix (N, V) that `tf.scatter` wants."""
    rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(ids))
    return tf.stack([rows, ids], axis=-1)

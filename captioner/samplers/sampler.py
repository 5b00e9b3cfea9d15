"""What every sampler shares: its contract, its loop and its score."""

import abc
import inspect
import math
import typing

import keras
import tensorflow as tf

from captioner.samplers.constraints import FINITE, Constraints, check_number

# The status of a caption or a beam: it goes on; it was ended; the constraints left no
# token to choose; there is no caption in this place yet.
LIVE, ENDED, STUCK, NONE = range(4)
SMALLEST = 1e-37  # about the least float32 above 0


class SamplerOutput(typing.NamedTuple):
    """The n best captions that a sampler found for each of B images, best first.

    Attributes:
        token_ids: int32 (B, n, L), without the start token: the words, the end
            token where it fitted, and padding.
        log_probs: float32 (B, n, L), of each token; 0 for padding.
        totals: float32 (B, n), their sum.
        scores: float32 (B, n), the totals normalised by length, see `Sampler`.
        status: int32 (B, n), ENDED, LIVE (no room for the end token), STUCK (the
            constraints left nothing to say) or NONE (there are fewer captions).
    """

    token_ids: tf.Tensor
    log_probs: tf.Tensor
    totals: tf.Tensor
    scores: tf.Tensor
    status: tf.Tensor


class SamplerState(typing.NamedTuple):
    """What the loop carries on, for B images of K rows each.

    Attributes:
        index: int32, the position.
        words: int32 (B, K), the last tokens.
        status: int32 (B, K), LIVE, ENDED, STUCK or NONE.
        open: bool (B,), whether an image's captions can still get better; where
            not, all stays as it is while the rest of the batch goes on.
        token_ids, log_probs: (B, K, L), what was written, and how likely it was.
        totals: float32 (B, K), the sums of `log_probs`.
        lengths: int32 (B, K), how many tokens were written.
        cache: nest of tensors (B * K, ...), the text cache.
    """

    index: tf.Tensor
    words: tf.Tensor
    status: tf.Tensor
    open: tf.Tensor
    token_ids: tf.Tensor
    log_probs: tf.Tensor
    totals: tf.Tensor
    lengths: tf.Tensor
    cache: typing.Any


class Sampler(abc.ABC):
    """Chooses the tokens of captions, one at a time, inside the graph.

    Calling a sampler runs one `tf.while_loop` of fixed shapes that stops as soon
    as every caption is finished. A sampler of your own is a subclass with the method
    `choose`, which says which tokens come next. To be saved in a preset, it has a
    `get_config` of all its arguments and is registered with
    `keras.saving.register_keras_serializable`.

    The score of a caption is its log-probability divided by a power of its length,
    including the end token:

        "average"   length ** length_penalty
        "gnmt"      ((5 + length) / 6) ** length_penalty   (Wu et al., 2016)

    Args:
        length_penalty: 0 ranks by probability, which favours short captions; with
            "average", 1 ranks by the average log-probability of a token.
        length_normalization: "average" or "gnmt".
        constraints: `Constraints`, or None.

    Raises:
        ValueError: an argument is out of range.

    Call arguments:
        next: function of (token_ids int32 (N,), text_cache, index) that returns
            logits (N, V) and the next text cache. N is B * `rows_per_image`; the
            rows of one image lie side by side.
        text_cache: nest of tensors (N, ...), the state before the first token.
        batch_size: B, may be a tensor.
        rules: `TokenRules`.

    Returns:
        `SamplerOutput` of the `num_hypotheses` best captions of each image.
    """

    rows_per_image = 1
    num_hypotheses = 1

    def __init__(
        self, length_penalty=0.0, length_normalization="average", constraints=None
    ):
        check_number("length_penalty", length_penalty, 0, FINITE)
        if length_normalization not in ("average", "gnmt"):
            raise ValueError(
                "length_normalization must be average or gnmt. "
                f"Received: length_normalization={length_normalization}"
            )
        if not isinstance(constraints, (Constraints, type(None))):
            raise ValueError(
                "constraints must be a Constraints or None. "
                f"Received: constraints={constraints!r}"
            )
        self.length_penalty = float(length_penalty)
        self.length_normalization = length_normalization
        self.constraints = constraints or Constraints()

    def __call__(self, next, text_cache, batch_size, rules):
        B, K, L = batch_size, self.rows_per_image, rules.max_length

        def keep_going(*state):
            return tf.reduce_any(SamplerState(*state).open)

        def step(*state):
            state = SamplerState(*state)
            logits, cache = next(
                tf.reshape(state.words, [B * K]), state.cache, state.index
            )
            probabilities = rules.probabilities(
                logits, tf.reshape(state.token_ids, [B * K, L]), state.index
            )
            probabilities = tf.reshape(probabilities, [B, K, logits.shape[-1]])
            parents, words, gained, status = self.choose(probabilities, state, rules)
            kept = state.token_ids, state.log_probs, state.totals, state.lengths
            if parents is not None:
                kept = [tf.gather(each, parents, batch_dims=1) for each in kept]
                rows = tf.reshape(parents + K * tf.range(B)[:, None], [B * K])
                cache = keras.tree.map_structure(lambda x: tf.gather(x, rows), cache)
            token_ids, log_probs, totals, lengths = kept
            written = words != rules.pad_id
            gained = tf.where(written, gained, 0.0)
            here = tf.range(L) == state.index
            after = SamplerState(
                state.index + 1,
                words,
                status,
                state.open,
                tf.where(here, words[:, :, None], token_ids),
                tf.where(here, gained[:, :, None], log_probs),
                totals + gained,
                lengths + tf.cast(written, tf.int32),
                # A while loop wants the static shapes that it began with.
                keras.tree.map_structure(
                    lambda x, before: tf.ensure_shape(x, before.shape),
                    cache,
                    state.cache,
                ),
            )
            return after._replace(open=self.may_win(after, L))

        state = SamplerState(
            tf.constant(0),
            tf.fill([B, K], rules.start_id),
            tf.tile(tf.constant([self.first_status()]), [B, 1]),
            tf.fill([B], True),
            tf.fill([B, K, L], rules.pad_id),
            tf.fill([B, K, L], 0.0),
            tf.fill([B, K], 0.0),
            tf.fill([B, K], 0),
            text_cache,
        )
        state = tf.while_loop(keep_going, step, state, maximum_iterations=L)
        return self._output(state, B, rules)

    def first_status(self):
        """The status of the K rows of an image before the first token."""
        return [LIVE] * self.rows_per_image

    @abc.abstractmethod
    def choose(self, probabilities, state, rules):
        """Which tokens come next.

        Args:
            probabilities: float32 (B, K, V), see `TokenRules.probabilities`.
            state: `SamplerState`.
            rules: `TokenRules`.

        Returns:
            parents: int32 (B, K), which row each next row goes on from, or None
                where each goes on from itself.
            words: int32 (B, K), the next tokens; padding where nothing is written.
            gained: float32 (B, K), their log-probabilities.
            status: int32 (B, K), the next status.
        """

    def may_win(self, state, max_length):
        """Whether a row may still become one of the captions that are asked for:
        bool (B,). The loop ends when none may."""
        return tf.reduce_any(state.status == LIVE, axis=1)

    def normalise(self, log_probs, lengths):
        """The score of captions from their log-probabilities and lengths."""
        if not self.length_penalty:
            return log_probs
        lengths = tf.cast(tf.maximum(lengths, 1), tf.float32)
        if self.length_normalization == "gnmt":
            lengths = (5.0 + lengths) / 6.0
        return log_probs / lengths**self.length_penalty

    def rank(self, scores, status, behind):
        """Scores to order captions by: those that are `behind` come after all others,
        and places without a caption last."""
        # Times a million, not less a million, which would round scores away.
        scores = tf.where(behind, 1e6 * (scores - 1.0), scores)
        return tf.where(status == NONE, -math.inf, scores)

    def _output(self, state, batch_size, rules):
        B, K, L, n = batch_size, *state.token_ids.shape[1:], self.num_hypotheses
        token_ids, log_probs = state.token_ids, state.log_probs
        totals, lengths, status = state.totals, state.lengths, state.status
        if rules.bad_endings:
            good = rules.good_lengths(
                tf.reshape(token_ids, [B * K, L]), tf.reshape(lengths, [B * K])
            )
            good = tf.reshape(good, [B, K])
            lengths = tf.where(status == ENDED, lengths, good)
            inside = tf.range(L) < lengths[:, :, None]
            token_ids = tf.where(inside, token_ids, rules.pad_id)
            log_probs = tf.where(inside, log_probs, 0.0)
            totals = tf.reduce_sum(log_probs, axis=-1)
        scores = self.normalise(totals, lengths)
        output = SamplerOutput(
            token_ids, log_probs, totals, scores, self.last_status(state, L)
        )
        if K == 1:
            return output
        # An unfinished caption only where too few have ended.
        _, best = tf.math.top_k(self.rank(scores, status, status != ENDED), n)
        return SamplerOutput(*(tf.gather(x, best, batch_dims=1) for x in output))

    def last_status(self, state, max_length):
        """The status to report, from the state after the loop."""
        return state.status

    def get_config(self):
        """The arguments that make the same sampler again, as JSON values.

        Options that every sampler has are left out at their defaults.
        """
        config = {"length_penalty": self.length_penalty}
        if self.length_normalization != "average":
            config["length_normalization"] = self.length_normalization
        constraints = self.constraints.get_config()
        return {**config, "constraints": constraints} if constraints else config

    @classmethod
    def from_config(cls, config):
        """The sampler that `get_config` describes."""
        config = dict(config)
        if "constraints" in config:
            config["constraints"] = Constraints(**config["constraints"])
        return cls(**config)

    @classmethod
    def options(cls):
        """The names of the arguments that samplers of this class take, a set."""
        return {
            name
            for base in cls.__mro__[:-1]
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
        }

    def replaced(self, sampler_class=None, **changes):
        """This sampler with other options; this one stays as it is.

        Args:
            sampler_class: another class of samplers, which takes over those options
                that it shares with this one.
            **changes: arguments of the class, or of `Constraints`.

        Returns:
            A `Sampler`.

        Raises:
            ValueError: the class has no such option, or it is out of range.

        Example:

        >>> from captioner.samplers import BeamSampler
        >>> BeamSampler(5).replaced(num_hypotheses=2, min_length=4).get_config()
        {'length_penalty': 0.7, 'constraints': {'min_length': 4}, 'num_beams': 5, \
'num_hypotheses': 2}
        """
        sampler_class = sampler_class or type(self)
        options = sampler_class.options()
        config = {name: v for name, v in self.get_config().items() if name in options}
        if "constraints" in changes:
            given = changes.pop("constraints")
            config["constraints"] = given.get_config() if given else {}
        constraints = dict(config.pop("constraints", {}))
        for name, value in changes.items():
            if name in Constraints.__dataclass_fields__:
                constraints[name] = value
            elif name in options:
                config[name] = value
            else:
                raise ValueError(
                    f"{sampler_class.__name__} does not have this option. "
                    f"Received: {name}={value}"
                )
        if constraints:
            config["constraints"] = constraints
        return sampler_class.from_config(config)

    def write(self, words, probabilities, state, rules):
        """The result of `choose` if each row continues itself.

        Args:
            words: int32 (B, K), the tokens that were chosen.
            probabilities, state, rules: as those of `choose`.
        """
        probability = tf.gather(probabilities, words, batch_dims=2)
        live, allowed = state.status == LIVE, probability >= 0
        status = tf.where(words == rules.end_id, ENDED, LIVE)
        status = tf.where(live, tf.where(allowed, status, STUCK), state.status)
        words = tf.where(live & allowed, words, rules.pad_id)
        return None, words, log(probability), status


def top_k(values, k):
    """As `tf.math.top_k`, and several times as fast if k is small and V is large.

    A row is cut into parts. The k largest values are in the k parts with the largest
    maxima, so only these are searched; they keep their order, so that the first of
    equal values wins.

    Args:
        values: float (..., V), all above the least float.
        k: int, at most V.

    Returns:
        The values, largest first, and their int32 places in V, both (..., k).
    """
    size, part = values.shape[-1], 64
    if size < 2 * part * k:
        return tf.math.top_k(values, k)
    number = -(-size // part)
    filled = [[0, 0]] * (len(values.shape) - 1) + [[0, number * part - size]]
    parts = tf.pad(values, filled, constant_values=values.dtype.min)
    rows = tf.reshape(parts, (-1, number, part))
    _, best = tf.math.top_k(tf.reduce_max(rows, axis=-1), k)
    best = tf.sort(best, axis=-1)
    found = tf.reshape(tf.gather(rows, best, batch_dims=1), (-1, k * part))
    found, places = tf.math.top_k(found, k)
    places = part * tf.gather(best, places // part, batch_dims=1) + places % part
    shape = tf.concat([tf.shape(values)[:-1], [k]], axis=0)
    return tf.reshape(found, shape), tf.reshape(places, shape)


def log(probabilities):
    """Log-probabilities, no lower than -85: of what is less likely, softmax knows no
    more."""
    return tf.math.log(tf.maximum(probabilities, SMALLEST))

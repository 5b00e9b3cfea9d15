"""From image features to captions: a sampler at work on a model, as TensorFlow ops."""

import functools

import tensorflow as tf

from captioner.samplers import sampler_class
from captioner.samplers.sampler import ENDED, LIVE, STUCK
from captioner.tasks.generate_result import GenerateResult, Hypothesis

# Named as in `GenerateResult`. Without a caption there is no reason.
FINISH_REASONS = {ENDED: "end", LIVE: "length", STUCK: "constraints"}


class CaptionWriter:
    """Writes captions of images that are features already.

    Args:
        model: a `CaptionModel`, or what has its `build_image_cache`,
            `build_text_cache` and `step`, and `attention_scores` where attention is
            asked for.
        preprocessor: a `CaptionPreprocessor`, of which it takes the tokenizer and the
            length of captions.
        feature_spec: `tf.TensorSpec` of one image's features, or a nest of them.
        sampler: a `Sampler` or its name.
        jit_compile: let XLA compile the loop.

    Raises:
        ValueError: the sampler's options or constraints do not fit the vocabulary.
    """

    def __init__(self, model, preprocessor, feature_spec, sampler, jit_compile=False):
        if isinstance(sampler, str):
            sampler = sampler_class(sampler)()
        self._model = model
        self._tokenizer = preprocessor.tokenizer
        vocabulary_size = self._tokenizer.vocabulary_size
        num_beams = getattr(sampler, "num_beams", 1)
        if num_beams > vocabulary_size:
            raise ValueError(
                f"num_beams must not be above the {vocabulary_size} words of the "
                f"vocabulary. Received: num_beams={num_beams}"
            )
        self._rules = sampler.constraints.token_rules(
            self._tokenizer, preprocessor.max_sequence_length
        )
        self.sampler = sampler
        self.jit_compile = jit_compile
        # The batch is left open: batches of any size share one trace. Without
        # autograph, which would rewrite code that is TF ops already.
        features = tf.nest.map_structure(
            lambda spec: tf.TensorSpec((None, *spec.shape), spec.dtype), feature_spec
        )
        token_ids = tf.TensorSpec((None, self._rules.max_length), tf.int32)
        # Partials, since TensorFlow counts the traces of a plain function over all
        # captioners, and warns after five of them.
        self._generate = tf.function(
            functools.partial(self.captions),
            input_signature=[features],
            autograph=False,
        )
        self._attend = tf.function(
            functools.partial(self._attention),
            input_signature=[features, token_ids],
            autograph=False,
        )

    def results(self, image_features, attention=False):
        """Features, float (B, P, E) -> list of B `GenerateResult`.

        Args:
            image_features: a tensor, or a nest of them.
            attention: ask for the attention of each token, too, as (T, P).
        """
        image_features = tf.nest.map_structure(
            lambda x: tf.cast(x, tf.float32), image_features
        )
        texts, output = self._generate(image_features)
        maps = [None] * len(texts)
        if attention:
            maps = self._attend(image_features, output.token_ids[:, 0]).numpy()
        texts = texts.numpy()
        output = type(output)(*(each.numpy() for each in output))
        lengths = (output.token_ids != self._tokenizer.pad_id).sum(axis=-1)
        results = []
        for row, seen in enumerate(maps):
            found = [
                Hypothesis(
                    text=texts[row, i].decode(),
                    token_ids=output.token_ids[row, i, : lengths[row, i]],
                    log_probs=output.log_probs[row, i, : lengths[row, i]],
                    total_log_prob=float(output.totals[row, i]),
                    score=float(output.scores[row, i]),
                    finish_reason=FINISH_REASONS[output.status[row, i]],
                )
                for i in range(texts.shape[1])
                if output.status[row, i] in FINISH_REASONS
            ]
            if seen is not None:
                seen = seen[: lengths[row, 0]]
            results.append(
                GenerateResult(
                    **vars(found[0]), hypotheses=tuple(found), attention=seen
                )
            )
        return results

    def captions(self, image_features):
        """As `tokens`, and before it the captions, strings (B, n)."""
        decode = self.tokens
        if self.jit_compile:
            decode = tf.function(decode, jit_compile=True, autograph=False)
            decode = _in_powers_of_two(decode)
        output = decode(image_features)
        return self._tokenizer.detokenize(output.token_ids), output

    def tokens(self, image_features):
        """The whole of decoding as TF ops, for any `tf.function`, also one with
        `jit_compile=True`: (B, P, E) -> `SamplerOutput`."""
        model = self._model
        batch_size = tf.shape(tf.nest.flatten(image_features)[0])[0]
        rows = self.sampler.rows_per_image
        image_cache = model.build_image_cache(image_features)

        def next(token_ids, text_cache, index):
            return model.step(token_ids, text_cache, image_cache, index)

        text_cache = model.build_text_cache(batch_size * rows, self._rules.max_length)
        return self.sampler(next, text_cache, batch_size, self._rules)

    def _attention(self, image_features, token_ids):
        """What each of the tokens (B, L) looked at: float32 (B, L, P)."""
        # A token is what comes after the one that the model is given.
        before = tf.pad(
            token_ids[:, :-1],
            [[0, 0], [1, 0]],
            constant_values=self._tokenizer.start_id,
        )
        return self._model.attention_scores(
            {"image_features": image_features, "token_ids": before}
        )


def _in_powers_of_two(decode):
    """`decode`, for which batches are filled up with repetitions of the last image,
    since XLA compiles again for each size."""

    def filled_up(image_features):
        number = tf.shape(tf.nest.flatten(image_features)[0])[0]
        size = 2 ** tf.range(31)
        size = tf.reduce_min(tf.boolean_mask(size, size >= number))
        rows = tf.minimum(tf.range(size), number - 1)
        output = decode(
            tf.nest.map_structure(lambda x: tf.gather(x, rows), image_features)
        )
        return type(output)(*(each[:number] for each in output))

    return filled_up

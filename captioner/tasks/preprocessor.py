"""From captions to what the model trains on: the packed rows of `fit` and `train`."""

import numpy as np
import tensorflow as tf

from captioner.tasks.captioner_options import CaptionerOptions

# A batch is as long as its longest row, rounded up to a multiple of this, so that
# there are only a few lengths for XLA to compile.
LENGTH_STEP = 8


class CaptionPreprocessor:
    """Joins an image converter and a tokenizer.

    All captions of an image stand in one row, one after the other, so that no step is
    spent on padding and the image is looked at once.

    Args:
        image_converter: an `ImageConverter`.
        tokenizer: a `Tokenizer`.
        max_sequence_length: maximum number of tokens of a caption, including the end
            token. A longer training caption is cut, and its cut end is not learned as
            an end.

    Call arguments:
        batch: dict of `captions` and of either `image_features` (B, P, E) or `images`
            (B, H, W, 3). The captions are strings: (B,) with one caption per image,
            (B, C) with "" where an image has fewer than C, or a `tf.RaggedTensor`
            (B, None). A caption without words is left out.

    Returns:
        x: dict of the image side as given, `token_ids`, int32 (B, T), and
            `segment_ids`, int32 (B, T): the number of the caption from 1, and 0 on
            padding. T is the length of the longest row, rounded up to a multiple of 8.
        y: int32 (B, T), at each position the token that comes next.
        sample_weight: float32 (B, T), 1 on tokens and 0 on padding.

    Raises:
        ValueError: `max_sequence_length` is below 2.

    Example:

    >>> import numpy as np
    >>> from captioner import CaptionPreprocessor, ImageConverter, Tokenizer
    >>> tokenizer = Tokenizer.from_captions(["a dog"])
    >>> preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer)
    >>> x, y, sample_weight = preprocessor(
    ...     {"image_features": np.zeros((1, 49, 8)), "captions": [["a dog", "dog"]]})
    >>> x["token_ids"].numpy().tolist()
    [[1, 4, 5, 1, 5, 0, 0, 0]]
    >>> y.numpy().tolist()
    [[4, 5, 2, 5, 2, 0, 0, 0]]
    >>> x["segment_ids"].numpy().tolist()
    [[1, 1, 1, 2, 2, 0, 0, 0]]
    """

    def __init__(
        self,
        image_converter,
        tokenizer,
        max_sequence_length=CaptionerOptions.max_sequence_length,
    ):
        if max_sequence_length < 2:
            raise ValueError(
                "max_sequence_length must be 2 or more. "
                f"Received: max_sequence_length={max_sequence_length}"
            )
        self.image_converter = image_converter
        self.tokenizer = tokenizer
        self.max_sequence_length = int(max_sequence_length)

    def __call__(self, batch):
        x = dict(batch)
        packed = self._pack(x.pop("captions"))
        length = tf.cast(tf.reduce_max(packed[0].row_lengths()), tf.int32)
        length = tf.maximum(-(-length // LENGTH_STEP), 1) * LENGTH_STEP
        token_ids, y, segment_ids = (
            rows.to_tensor(0, shape=tf.stack([-1, length])) for rows in packed
        )
        sample_weight = tf.cast(segment_ids > 0, tf.float32)
        x.update(token_ids=token_ids, segment_ids=segment_ids)
        return x, y, sample_weight

    def _pack(self, captions):
        """Strings (B,), (B, C) or ragged (B, None) -> token ids, next token ids and
        caption numbers, each an int32 `tf.RaggedTensor` (B, None)."""
        if not isinstance(captions, tf.RaggedTensor):
            captions = tf.convert_to_tensor(captions, tf.string)
            if captions.shape.rank == 1:
                captions = captions[:, None]
            captions = tf.RaggedTensor.from_tensor(captions)
        words = self.tokenizer.tokenize(captions.flat_values)
        has_words = words.row_lengths() > 0
        words = tf.ragged.boolean_mask(words, has_words)
        captions = tf.ragged.boolean_mask(captions, captions.with_values(has_words))
        one = tf.ones([words.nrows(), 1], tf.int32)
        after = tf.concat([words, one * self.tokenizer.end_id], axis=1)
        after = after[:, : self.max_sequence_length]
        before = tf.concat([one * self.tokenizer.start_id, after[:, :-1]], axis=1)
        numbers = tf.cast(tf.ragged.range(captions.row_lengths()) + 1, tf.int32)
        numbers = tf.repeat(numbers.flat_values, after.row_lengths())
        return [
            captions.with_values(rows).merge_dims(1, 2)
            for rows in (before, after, after.with_values(numbers))
        ]

    def rows(self, captions):
        """The packed captions of each image, without padding.

        Args:
            captions: list of lists of str, the captions of each image. A caption
                without words is left out.

        Returns:
            List of int32 arrays (3, T), one for each image: its token ids, the token
            that comes next at each position, and the number of the caption, from 1.

        Example:

        >>> from captioner import CaptionPreprocessor, ImageConverter, Tokenizer
        >>> tokenizer = Tokenizer.from_captions(["a dog"])
        >>> preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer)
        >>> preprocessor.rows([["a dog", "dog"]])[0].tolist()
        [[1, 4, 5, 1, 5], [4, 5, 2, 5, 2], [1, 1, 1, 2, 2]]
        """
        texts = [text for texts in captions for text in texts]
        captions = tf.RaggedTensor.from_row_lengths(
            tf.constant(texts, tf.string), [len(texts) for texts in captions]
        )
        packed = self._pack(captions)
        ends = packed[0].row_splits.numpy()[1:-1]
        values = np.stack([rows.flat_values.numpy() for rows in packed])
        return np.split(values, ends, axis=1)

    def row(self, captions):
        """One packed row, int32 (3, T), from the token ids of an image's captions with
        their end tokens."""
        row = [np.zeros((3, 0), np.int32)]
        for number, ids in enumerate(captions, 1):
            ids = ids[: self.max_sequence_length]
            before = [self.tokenizer.start_id, *ids[:-1]]
            row.append([before, ids, [number] * len(ids)])
        return np.concatenate(row, axis=1, dtype=np.int32)


def padded_length(lengths):
    """The length of a batch of rows of these lengths: that of the longest, rounded up
    to a multiple of 8.

    Example:

    >>> padded_length([3, 17])
    24
    """
    return -(-int(max(1, *lengths)) // LENGTH_STEP) * LENGTH_STEP

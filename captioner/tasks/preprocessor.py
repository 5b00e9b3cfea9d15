"""Examples to what the model trains on, and what it writes back to text."""

import numpy as np
import tensorflow as tf


class CaptionPreprocessor:
    """Joins an image converter and a tokenizer.

    Args:
        image_converter: an `ImageConverter`.
        tokenizer: a `Tokenizer`.
        max_sequence_length: L, the most tokens of a caption, its end token
            included. Longer training captions are cut, and are then not told to
            end there.

    Call arguments:
        batch: dict of `captions`, strings (B, C), "" where an image has fewer than
            C, and either `image_features` (B, P, E) or `images` (B, H, W, 3).

    Returns:
        x: dict of the image side as given, and `token_ids`, int32 (B, C, L).
        y: int32 (B, C, L), at each position the token that comes next.
        sample_weight: float32 (B, C, L), 0 on padding.

    Example:

    >>> import numpy as np
    >>> from captioner.image_converter import ImageConverter
    >>> from captioner.tokenizer import Tokenizer
    >>> tokenizer = Tokenizer.from_captions(["a dog"])
    >>> preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer, 4)
    >>> x, y, sample_weight = preprocessor(
    ...     {"image_features": np.zeros((1, 49, 8)), "captions": [["a dog"]]})
    >>> y.numpy().tolist()
    [[[4, 5, 2, 0]]]
    """

    def __init__(self, image_converter, tokenizer, max_sequence_length=24):
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
        captions = tf.convert_to_tensor(x.pop("captions"))
        words = self.tokenizer.tokenize(tf.reshape(captions, [-1]))
        ones = tf.ones([words.nrows(), 1], tf.int32)
        rows = tf.concat(
            [ones * self.tokenizer.start_id, words, ones * self.tokenizer.end_id],
            axis=1,
        )
        rows = rows.to_tensor(
            self.tokenizer.pad_id, shape=[None, self.max_sequence_length + 1]
        )
        rows = tf.reshape(
            rows, tf.concat([tf.shape(captions), [self.max_sequence_length + 1]], 0)
        )
        rows = tf.ensure_shape(
            rows, (*captions.shape, self.max_sequence_length + 1), name="token_ids"
        )
        y = rows[..., 1:]
        # An image's missing caption is "", of which nothing is to be learnt; nor is
        # from one without words, as "...".
        has_words = tf.reshape(words.row_lengths() > 0, tf.shape(captions))
        real = (y != self.tokenizer.pad_id) & has_words[..., None]
        return {**x, "token_ids": rows[..., :-1]}, y, tf.cast(real, tf.float32)

    def rows(self, captions):
        """All captions of an image in one row, so that no step is spent on padding.

        Args:
            captions: list of lists of str, the captions of each image. One without
                words is left out, since nothing is to be learnt from it.

        Returns:
            For each image an int32 array (3, T): its token ids; at each position the
            token that comes next; and the number of the caption, from 1.

        Example:

        >>> from captioner.image_converter import ImageConverter
        >>> from captioner.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer.from_captions(["a dog"])
        >>> preprocessor = CaptionPreprocessor(ImageConverter(), tokenizer)
        >>> preprocessor.rows([["a dog", "dog"]])[0].tolist()
        [[1, 4, 5, 1, 5], [4, 5, 2, 5, 2], [1, 1, 1, 2, 2]]
        """
        words = self.tokenizer.tokenize([text for texts in captions for text in texts])
        words, end = iter(words.to_list()), [self.tokenizer.end_id]
        ids = ([next(words) for _ in texts] for texts in captions)
        return [self.row([each + end for each in texts if each]) for texts in ids]

    def row(self, captions):
        """One such row, from the token ids of an image's captions, with their ends."""
        row = [np.zeros((3, 0), np.int32)]
        for number, ids in enumerate(captions, 1):
            ids = ids[: self.max_sequence_length]
            before = [self.tokenizer.start_id, *ids[:-1]]
            row.append([before, ids, [number] * len(ids)])
        return np.concatenate(row, axis=1, dtype=np.int32)

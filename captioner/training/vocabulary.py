"""Which words a training can teach: the report on its captions, and new words for a
captioner that is already trained."""

import dataclasses

import numpy as np

from captioner.tasks.caption_model import CaptionModel
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import CaptionPreprocessor
from captioner.tokenizers.tokenizer import frequent_words
from captioner.training.training_options import CAPTIONS_PER_COUNT, MOST_COUNT

# With a larger share of unknown words nothing can be learned.
HOPELESS = 0.5
# A share of unknown words, or of cut captions, that deserves advice.
NOTABLE = 0.05


def default_min_count(num_captions):
    """How often a word must occur to be in the vocabulary, by the number of captions:
    rare words cannot be learned, but a small dataset has no other.

    Example:

    >>> default_min_count(60), default_min_count(30_000)
    (1, 4)
    """
    return min(MOST_COUNT, 1 + num_captions // CAPTIONS_PER_COUNT)


@dataclasses.dataclass(frozen=True)
class CaptionReport:
    """What training does with the captions of a dataset; `str(report)` is its lines.

    Args:
        vocabulary_size: how many words the captioner can write.
        unknown: dict of split name to the share of its words that are unknown.
        captions, cut, longest: how many training captions there are, how many are
            longer than allowed, and how many tokens the longest has.
        max_sequence_length, min_count: the options.

    Example:

    ```python
    report = CaptionReport.of(preprocessor, train_captions, dev_captions, min_count=4)
    report.check()
    print(report)
    ```
    """

    vocabulary_size: int
    unknown: dict
    captions: int
    cut: int
    longest: int
    max_sequence_length: int
    min_count: int

    @classmethod
    def of(cls, preprocessor, train_captions, dev_captions, min_count):
        """Look at lists of captions with a `CaptionPreprocessor`."""
        tokenizer = preprocessor.tokenizer
        train_captions = list(train_captions)
        lengths = tokenizer.tokenize(train_captions).row_lengths().numpy()
        return cls(
            vocabulary_size=tokenizer.vocabulary_size - 4,
            unknown={
                "train": tokenizer.unknown_rate(train_captions),
                "dev": tokenizer.unknown_rate(dev_captions),
            },
            captions=len(train_captions),
            cut=int((lengths >= preprocessor.max_sequence_length).sum()),
            longest=int(lengths.max(initial=0)) + 1,
            max_sequence_length=preprocessor.max_sequence_length,
            min_count=min_count,
        )

    def check(self):
        """Refuse captions from which no captioner can learn.

        Raises:
            ValueError: it names the reason and gives advice.
        """
        if self.longest == 1:
            raise ValueError(
                "The training captions have no words: check the column of captions."
            )
        if not self.vocabulary_size or self.unknown["train"] > HOPELESS:
            raise ValueError(
                f"{self.unknown['train']:.0%} of the words of the training captions "
                "would be unknown, so that no captioner can learn from them: most "
                f"words occur fewer than {self.min_count} times. Use a smaller "
                f"min_count or more captions. Received: min_count={self.min_count}"
            )

    def __str__(self):
        lines = [
            f"vocabulary: {self.vocabulary_size:,} words; unknown: "
            f"{self.unknown['train']:.1%} of the words of train, "
            f"{self.unknown['dev']:.1%} of dev"
        ]
        if self.unknown["train"] > NOTABLE and self.min_count > 1:
            lines.append(
                f"  words that occur fewer than {self.min_count} times are unknown; "
                "--min-count 1 keeps them all"
            )
        if self.unknown["dev"] > max(NOTABLE, 2 * self.unknown["train"]):
            lines.append("  many words of dev occur in no caption of train")
        if self.cut:
            lines.append(
                f"cut: {self.cut:,} of {self.captions:,} training captions "
                f"({self.cut / self.captions:.1%}) have more than "
                f"{self.max_sequence_length - 1} words; --max-sequence-length "
                f"{self.longest} keeps them whole"
            )
        return "\n".join(lines)


def learn_new_words(captioner, counts, min_count):
    """A captioner whose vocabulary has all frequent words of some captions.

    The old words keep their ids and their weights. A new word begins with the
    embedding of the unknown word, which it was until now, and with the mean of the
    output weights of all words: it is as unlikely as any word that does not fit, and
    training raises it from there.

    Args:
        captioner: `ImageCaptioner`.
        counts: `Counter` of the words of the training captions.
        min_count: how often a word must occur.

    Returns:
        The captioner, or another one where there are new words; and the list of them.
    """
    old = captioner.preprocessor.tokenizer
    known = set(old.vocabulary)
    words = [w for w in frequent_words(counts, min_count) if w not in known]
    if not words:
        return captioner, []
    tokenizer = old.with_words(words)
    model = captioner.caption_model
    grown = CaptionModel.from_config(
        {**model.get_config(), "vocabulary_size": tokenizer.vocabulary_size}
    )
    for before, after in zip(model.weights, grown.weights, strict=True):
        value = before.numpy()
        if before is model.token_embedding.embeddings:
            new = value[old.unknown_id]
            value = np.concatenate([value, np.tile(new, (len(words), 1))])
        elif before.shape != after.shape:  # (D, V) and (V,) of the logits
            new = value.mean(axis=-1, keepdims=True)
            value = np.concatenate([value, np.repeat(new, len(words), axis=-1)], -1)
        after.assign(value)
    preprocessor = CaptionPreprocessor(
        captioner.preprocessor.image_converter,
        tokenizer,
        captioner.preprocessor.max_sequence_length,
    )
    return ImageCaptioner(grown, preprocessor, captioner.sampler), words

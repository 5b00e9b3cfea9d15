"""CIDEr optimisation: the stage of `train` that learns from its own captions.

Cross-entropy teaches a captioner to continue what people wrote. Here it writes
captions itself, is told how good each is as a whole, and makes the better ones
likelier: self-critical sequence training (Rennie et al., CVPR 2017), with the mean
reward of the other captions of the same photo as the baseline (Luo, "A better variant
of self-critical sequence training", 2020).

    reward    = CIDEr-D(caption, captions that people wrote)
    advantage = reward - mean reward of the photo's other sampled captions
    loss      = -advantage * log p(caption | photo), the mean over sampled tokens

p is what was sampled from, which never writes the unknown word. Were it that of the
whole vocabulary, captions worse than the others would make the unknown word likelier
after their first words, without limit, since it is never sampled and never punished.
"""

import time

import numpy as np
import tensorflow as tf

from captioner.metrics import CiderD
from captioner.samplers import RandomSampler
from captioner.tasks.caption_crossentropy import CaptionCrossentropy
from captioner.tasks.image_captioner import ImageCaptioner
from captioner.tasks.preprocessor import padded_length
from captioner.training.row_batches import padded


class CiderReward:
    """CIDEr-D of token ids against the captions of the training split.

    `evaluate` scores with the same class. Here it works on the captioner's tokens and
    the document frequencies of the training split. The end token counts as a word in
    candidates and references: without it, a caption that stops at "a dog with a" would
    only be shorter, and captions would learn to end like that.

    Args:
        tokenizer: a `Tokenizer`.
        captions: list of lists of str, the captions of each image of the split.

    Attributes:
        references: the captions as lists of token ids with their end, for each image.

    Example:

    >>> from captioner import Tokenizer
    >>> tokenizer = Tokenizer.from_captions(["a dog", "two cats"])
    >>> reward = CiderReward(tokenizer, [["a dog"], ["two cats"]])
    >>> scores = reward([0, 0], [[4, 6, 2, 0], [4, 6, 0, 0]])
    >>> [round(float(score), 1) for score in scores]
    [7.5, 4.2]
    """

    def __init__(self, tokenizer, captions):
        self.pad_id = tokenizer.pad_id
        words = iter(
            tokenizer.tokenize([text for texts in captions for text in texts]).to_list()
        )
        end = [tokenizer.end_id]
        self.references = [[next(words) + end for _ in texts] for texts in captions]
        self._cider_d = CiderD(self.references)

    def __call__(self, images, token_ids):
        """Score captions.

        Args:
            images: int (N,), the number of each caption's image in the split.
            token_ids: int (N, L), with the end token where there is one, and padding.

        Returns:
            float32 (N,), from 0 to 10.
        """
        lengths = (np.asarray(token_ids) != self.pad_id).sum(axis=1)
        rows = np.asarray(token_ids).tolist()
        rewards = self._cider_d.score_each(
            [row[:length] for row, length in zip(rows, lengths)], images
        )
        return rewards.astype(np.float32)


class CiderOptimization:
    """The stage; see `Crossentropy` for what the loop asks of it.

    Captions are sampled without dropout, and the gradient is computed without it: it is
    that of the expected reward. The sampled captions of an image and, with
    `crossentropy`, those that people wrote stand in one row.

    Args:
        epochs: number of epochs.
        captioner: `ImageCaptioner`.
        reward: `CiderReward`.
        samples: K, number of captions sampled per image, 2 or more.
        crossentropy: share of cross-entropy in the loss, from 0 to below 1.
    """

    name = "cider"
    patience = None
    backbone_layers = 0

    def __init__(self, epochs, captioner, reward, samples=5, crossentropy=0.0):
        self.epochs = epochs
        self.reward = reward
        self.samples = samples
        self.crossentropy = crossentropy
        self.loss = CaptionCrossentropy()
        # The same model, for it to be asked for samples.
        self.writer = ImageCaptioner(
            captioner.caption_model,
            captioner.preprocessor,
            RandomSampler(num_hypotheses=samples),
        )
        tokenizer = captioner.preprocessor.tokenizer
        never = [tokenizer.start_id, tokenizer.pad_id, tokenizer.unknown_id]
        self.never = np.isin(np.arange(tokenizer.vocabulary_size), never)

    def view(self, x, y, sample_weight):
        """Select the images and their numbers."""
        return {name: x[name] for name in ("image_features", "index")}

    def prepare(self, batch, seed):
        """Sample, score, and put a photo's captions of both kinds into one row."""
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        self.writer.sampler.seed = seed + replica
        features = tf.cast(batch["image_features"], tf.float32)
        token_ids = self.writer.generate_step(features).token_ids
        rows, weights, sampled = tf.numpy_function(
            self._score, [batch["index"], token_ids], (tf.int32, tf.float32, tf.float32)
        )
        rows.set_shape((3, features.shape[0], None))
        for each in (weights, sampled):
            each.set_shape((features.shape[0], None))
        x = {"image_features": features, "token_ids": rows[0], "segment_ids": rows[2]}
        return x, rows[1], weights, sampled

    def _score(self, images, token_ids):
        """Sampled captions (B, K, L) -> rows (3, B, T), what each of their tokens
        weighs in the loss, (B, T), and which were sampled, (B, T)."""
        number, samples, length = token_ids.shape
        started = time.perf_counter()
        rewards = self.reward(images.repeat(samples), token_ids.reshape(-1, length))
        rewards = rewards.reshape(number, samples)
        self.note("seconds", time.perf_counter() - started)
        self.note("reward", float(rewards.sum()))
        self.note("captions", rewards.size)
        others = (rewards.sum(axis=1, keepdims=True) - rewards) / (samples - 1)
        advantages = (1 - self.crossentropy) * (rewards - others)
        preprocessor, written = self.writer.preprocessor, [[] for _ in images]
        if self.crossentropy:
            written = [self.reward.references[image] for image in images]
        lengths = (token_ids != self.reward.pad_id).sum(axis=2)
        ratio = lengths.sum() / max(1, sum(len(ids) for w in written for ids in w))
        rows, weights, sampled = [], [], []
        for ids, each, people, advantage in zip(
            token_ids, lengths, written, advantages
        ):
            own = [ids[k, :n].tolist() for k, n in enumerate(each)]
            rows.append(preprocessor.row([*own, *people]))
            others = rows[-1].shape[1] - each.sum()
            weights.append(
                [*advantage.repeat(each), *[self.crossentropy * ratio] * others]
            )
            sampled.append([1.0] * each.sum() + [0.0] * others)
        length = padded_length(row.shape[1] for row in rows)
        return (
            padded(rows, length).transpose(1, 0, 2),
            padded(weights, length).astype(np.float32),
            padded(sampled, length).astype(np.float32),
        )

    def objective(self, model, batch):
        """See `train_step.crossentropy`."""
        x, y, weights, sampled = batch
        # Of what was sampled without dropout: the gradient of the expected reward.
        logits = model(x, training=False)
        unwritten = self.never & (sampled > 0)[:, :, None]
        losses = self.loss.call(y, tf.where(unwritten, -1e9, logits))
        number = tf.maximum(tf.reduce_sum(sampled), 1.0)
        return tf.reduce_sum(losses * weights) / number, number

    def has_exploded(self, loss, vocabulary_size):
        """Never: only the gradient of this loss means something."""
        return False

    def report(self, state):
        """The mean reward, and its share of the time of the steps."""
        return {
            "reward": self.notes["reward"] / self.notes["captions"],
            "reward_share": round(self.notes["seconds"] / state["seconds"], 4),
        }

    def note(self, name, value):
        """Add a value to a note of the epoch."""
        self.notes[name] = self.notes.get(name, 0) + value

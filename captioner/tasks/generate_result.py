"""What comes back of one image."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Hypothesis:
    """One caption of an image, and how likely the model holds it to be.

    Attributes:
        text: str.
        token_ids: int32 (T,), the words, and the end token where it was written.
        log_probs: float32 (T,), of each token after those before it.
        total_log_prob: float, their sum.
        score: float, what captions are ranked by: the sum, normalised by length as
            the sampler says.
        finish_reason: "end"; "length" where there was no room for the end token; or
            "constraints" where these left nothing to say: it is then the best
            caption that was finished until then, or else the words so far.
    """

    text: str
    token_ids: np.ndarray
    log_probs: np.ndarray
    total_log_prob: float
    score: float
    finish_reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class GenerateResult(Hypothesis):
    """The best caption of an image, and all that is known about it.

    Attributes:
        hypotheses: tuple of `Hypothesis`, the `num_hypotheses` best ones, best first;
            fewer where there are no more.
        attention: float32 (T, height, width) where it was asked for: how much of
            each token was seen at which position of the image; or None.

    Example:

    ```python
    result = captioner.generate_results("photo.jpg")
    print(result.text, result.score, [each.text for each in result.hypotheses])
    ```
    """

    hypotheses: tuple[Hypothesis, ...]
    attention: np.ndarray | None = None

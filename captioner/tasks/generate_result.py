"""What a task returns for one image."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Hypothesis:
    """One caption of an image, and how likely the model considers it.

    A task without scores knows only the text; the rest is None.

    Attributes:
        text: str.
        token_ids: int32 (T,), the words, and the end token if it was written.
        log_probs: float32 (T,), of each token after those before it.
        total_log_prob: float, their sum.
        score: float, what captions are ranked by: the sum, normalised by length as
            the sampler says.
        finish_reason: "end"; "length" if there was no room for the end token; or
            "constraints" if these left no token to choose: the text is then the best
            caption that was finished before, or else the words so far.
    """

    text: str
    token_ids: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    total_log_prob: float | None = None
    score: float | None = None
    finish_reason: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class GenerateResult(Hypothesis):
    """The best caption of an image, and all that is known about it.

    Attributes:
        hypotheses: tuple of `Hypothesis`, the best captions, best first; at least the
            one that the result itself is.
        attention: float32 (T, height, width) if it was asked for: how much each token
            looked at each position of the image; or None.
        confidence: float, how likely the caption is right, 0 to 1; or None where the
            captioner does not know.

    Example:

    ```python
    result = captioner.generate_results("photo.jpg")
    print(result.text, result.score, [each.text for each in result.hypotheses])
    ```
    """

    hypotheses: tuple[Hypothesis, ...] = ()
    attention: np.ndarray | None = None
    confidence: float | None = None

    def __post_init__(self):
        if not self.hypotheses:
            names = [field.name for field in dataclasses.fields(Hypothesis)]
            best = Hypothesis(**{name: getattr(self, name) for name in names})
            object.__setattr__(self, "hypotheses", (best,))

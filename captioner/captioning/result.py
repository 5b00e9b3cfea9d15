"""What became of one photo of a folder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """What became of one photo.

    Attributes:
        path: str, as it was given or found; in an archive, "archive.zip/member.jpg".
        caption: str, or None if there is an error.
        score: float, the log-probability that the sampler ranks by, or None.
        error: str, the reason why there is no caption, or None.
        kind: str, the kind of the error (see `captioner.caption`); "kept" for a caption
            that existed before the run; or None.
        captions: tuple of str, all captions, the best first.
        scores: tuple of float, the scores of `captions`.
        confidence: float, how likely the caption is right, 0 to 1; None where the
            captioner does not know.
    """

    path: str
    caption: str | None = None
    score: float | None = None
    error: str | None = None
    kind: str | None = None
    captions: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    confidence: float | None = None

"""What became of one photo of a folder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """What became of one photo.

    Attributes:
        path: str, as it was given or found; in an archive, "archive.zip/member.jpg".
        caption: str, or None where there is an error.
        score: float, the log-probability that the sampler ranks by, or None.
        error: str, why there is no caption, or None.
        kind: str, the error's kind (see `captioner.caption`); "kept" where the caption
            is one that was there before; or None.
        captions: tuple of str, all captions that were asked for, the best first.
        scores: tuple of float, theirs.
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

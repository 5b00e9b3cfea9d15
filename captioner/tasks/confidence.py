"""How likely it is that a generated caption is right, between 0 and 1.

A logistic regression on what is known when a caption is generated: how probable its
words are, how far the other beams agree with it, and how familiar the image is. An
image is familiar when its features lie where those of the training photos lie: the
share of them outside the first principal components is small.

`training/confidence_fitting.py` fits it on a dev split. There a caption counts as right
when its CIDEr reaches the lowest quarter of what people's own captions of the split
reach against the other captions of the same photo.
"""

import dataclasses

import numpy as np

NUM_COMPONENTS = 128
EVIDENCE = ("mean_log_prob", "lowest_log_prob", "agreement", "length", "unfamiliarity")


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """What a preset knows of its own reliability.

    Attributes:
        mean: float32 (E,), of the training photos' features, averaged over positions.
        components: float32 (E, k), the first principal components of these.
        residual: float, the mean squared length of what is outside the components.
        center, scale: float32 (5,), of the evidence on dev; see `EVIDENCE`.
        weights: float32 (5,), of the scaled evidence.
        bias: float.

    Example:

    >>> confidence = Confidence(
    ...     np.zeros(4), np.eye(4)[:, :2], 1.0, np.zeros(5), np.ones(5), np.ones(5), 0.5
    ... )
    >>> float(confidence.of_evidence(np.zeros((1, 5)))[0].round(3))
    0.622
    """

    mean: np.ndarray
    components: np.ndarray
    residual: float
    center: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    def __call__(self, image_features, hypotheses):
        """The confidence of the best caption of each image.

        Args:
            image_features: float (B, P, E).
            hypotheses: for each image a sequence of `Hypothesis`, the best first.

        Returns:
            float64 (B,), 0 to 1.
        """
        return self.of_evidence(self.evidence(image_features, hypotheses))

    def evidence(self, image_features, hypotheses):
        """What the confidence is computed from, float64 (B, 5): see `EVIDENCE`."""
        unfamiliarity = self.unfamiliarity(image_features)
        return np.array(
            [
                [*_of_words(several), unfamiliar]
                for several, unfamiliar in zip(hypotheses, unfamiliarity, strict=True)
            ]
        ).reshape(-1, len(EVIDENCE))

    def unfamiliarity(self, image_features):
        """How unlike the training photos images are: float64 (B,), 0 on the average of
        the training photos, in powers of e."""
        pooled = np.asarray(image_features, np.float64).mean(axis=1) - self.mean
        outside = (pooled**2).sum(axis=1) - ((pooled @ self.components) ** 2).sum(
            axis=1
        )
        return np.log(np.maximum(outside, 1e-9) / self.residual)

    def of_evidence(self, evidence):
        """Evidence, float (B, 5) -> confidence, float64 (B,)."""
        scaled = (evidence - self.center) / self.scale
        return 1 / (1 + np.exp(-(scaled @ self.weights + self.bias)))

    def arrays(self):
        """All of it as a dict of arrays, for a file."""
        return {
            field.name: np.asarray(getattr(self, field.name), np.float32)
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_arrays(cls, arrays, feature_width):
        """The opposite of `arrays`.

        Args:
            arrays: dict of arrays, as from a file.
            feature_width: E, of the captioner.

        Raises:
            ValueError: an array is missing, of another shape, or not finite.
        """
        count = len(EVIDENCE)
        shapes = {
            "mean": (feature_width,),
            "components": (feature_width, None),
            "residual": (),
            "center": (count,),
            "scale": (count,),
            "weights": (count,),
            "bias": (),
        }
        found = {}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if (
                array is None
                or array.dtype.kind != "f"
                or array.ndim != len(shape)
                or any(n not in (size, None) for n, size in zip(shape, array.shape))
                or not np.isfinite(array).all()
            ):
                raise ValueError(
                    f"{name} of the confidence must be finite floats of shape {shape}. "
                    f"Received: {None if array is None else array.shape}"
                )
            found[name] = array.astype(np.float64)
        return cls(**found)


def principal_components(pooled, number=NUM_COMPONENTS):
    """The parts of a `Confidence` that know the training photos.

    Args:
        pooled: float (N, E), the features of N photos, averaged over positions.
        number: how many components; no more than N - 1 or E / 2 are used.

    Returns:
        A dict of `mean`, `components` and `residual`.

    Example:

    >>> parts = principal_components(np.random.default_rng(0).normal(size=(50, 8)))
    >>> parts["components"].shape
    (8, 4)
    """
    number = max(1, min(number, len(pooled) - 1, pooled.shape[1] // 2))
    mean = pooled.mean(axis=0, dtype=np.float64)
    centered = pooled - mean
    values, vectors = np.linalg.eigh(centered.T @ centered / len(pooled))
    components = vectors[:, ::-1][:, :number]
    outside = max(float(values[::-1][number:].sum()), 1e-9)
    return {"mean": mean, "components": components, "residual": outside}


def _of_words(hypotheses):
    """The evidence in the words of the best caption and of its rivals."""
    best = hypotheses[0]
    if not len(best.log_probs):
        return 0.0, 0.0, 0.0, 0.0
    words = set(best.text.split())
    shared = [
        2
        * len(words & set(other.text.split()))
        / max(1, len(words) + len(set(other.text.split())))
        for other in hypotheses[1:]
    ]
    return (
        float(np.mean(best.log_probs)),
        float(np.min(best.log_probs)),
        float(np.mean(shared)) if shared else 1.0,
        float(len(best.log_probs)),
    )

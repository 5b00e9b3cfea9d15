"""How likely it is that a generated caption is right, between 0 and 1.

A logistic regression on what is known when a caption is generated: how probable its
tokens are, how many they are, and how familiar the image is. An image is familiar when
its features lie where those of the training photos lie: little of them is outside the
first principal components.

`training/confidence_fitting.py` fits it on a dev split; `metrics/rightness.py` says
which captions count as right there.
"""

import dataclasses
import io
import zipfile

import numpy as np

NUM_COMPONENTS = 128
EVIDENCE = ("mean_log_prob", "lowest_log_prob", "length", "unfamiliarity")
MAX_BYTES = 2**26  # of a file of one


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """What a preset knows of its own reliability.

    Attributes:
        mean: float32 (E,), of the training photos' features, averaged over positions.
        components: float32 (E, k), the first principal components of these.
        residual: float, the mean squared length of what is outside the components.
        center, scale: float32 (4,), of the evidence on dev; see `EVIDENCE`.
        weights: float32 (4,), of the scaled evidence.
        bias: float.

    Example:

    >>> confidence = Confidence(
    ...     np.zeros(4), np.eye(4)[:, :2], 1.0, np.zeros(4), np.ones(4), np.ones(4), 0.5
    ... )
    >>> float(confidence.of_evidence(np.zeros((1, 4)))[0].round(3))
    0.622
    """

    mean: np.ndarray
    components: np.ndarray
    residual: float
    center: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    def __call__(self, image_features, results):
        """The confidence of the caption of each image.

        Args:
            image_features: float (B, P, E).
            results: list of B `Hypothesis`.

        Returns:
            float64 (B,), 0 to 1.
        """
        return self.of_evidence(self.evidence(image_features, results))

    def evidence(self, image_features, results):
        """What the confidence is computed from, float64 (B, 4): see `EVIDENCE`."""
        words = [
            (
                (np.mean(each.log_probs), np.min(each.log_probs), len(each.log_probs))
                if len(each.log_probs)
                else (0.0, 0.0, 0.0)
            )
            for each in results
        ]
        return np.column_stack(
            [np.reshape(words, (-1, 3)), self.unfamiliarity(image_features)]
        )

    def unfamiliarity(self, image_features):
        """How unlike the training photos images are: float64 (B,), 0 on the average of
        the training photos, in powers of e."""
        pooled = np.asarray(image_features, np.float64).mean(axis=1) - self.mean
        outside = (pooled**2).sum(axis=1) - ((pooled @ self.components) ** 2).sum(
            axis=1
        )
        return np.log(np.maximum(outside, 1e-9) / self.residual)

    def of_evidence(self, evidence):
        """Evidence, float (B, 4) -> confidence, float64 (B,)."""
        scaled = (evidence - self.center) / self.scale
        return 1 / (1 + np.exp(-(scaled @ self.weights + self.bias)))

    def to_bytes(self):
        """All of it as the bytes of an `.npz` file, without compression."""
        file = io.BytesIO()
        arrays = {
            field.name: np.asarray(getattr(self, field.name), np.float32)
            for field in dataclasses.fields(self)
        }
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data, feature_width):
        """The opposite of `to_bytes`; nothing in the bytes is run as code.

        Args:
            data: bytes.
            feature_width: E, of the captioner.

        Raises:
            ValueError: it is no such file, or an array is missing, of another shape,
                or not finite.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                sizes = [member.file_size for member in archive.infolist()]
            if sum(sizes) > MAX_BYTES:
                raise ValueError(f"it inflates to {sum(sizes):,} bytes")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"The confidence cannot be read: {error}") from error
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

"""Fits the confidence of a captioner on a dev split; see `tasks/confidence.py`."""

import numpy as np

from captioner.metrics.rightness import least_right_score, right_captions
from captioner.tasks.confidence import EVIDENCE, Confidence, principal_components
from captioner.training.unfamiliar_images import unfamiliar_images

# Enough that the principal components settle; more photos change them little.
NUM_PHOTOS = 4000
# Dev photos for each unfamiliar picture: these are rare among what users have.
PHOTOS_A_PICTURE = 5
BATCH_SIZE = 64
RIDGE = 1e-3  # of the weights; the evidence is scaled


def fit_confidence(captioner, features, train_images, dev_images, references):
    """The `Confidence` of a captioner, with its own sampler.

    Args:
        captioner: an `ImageCaptioner`.
        features: a `FeatureCache` of its converter and image network, with all images.
        train_images: the photos that it was trained on, as the cache knows them.
        dev_images: those of the dev split.
        references: list of list of str, the captions of each dev photo by people.

    Returns:
        A `Confidence`; None where the photos have one reference each, since nothing
        then says how good a caption can be.
    """
    least = least_right_score(references)
    if least is None:
        return None
    step = -(-len(train_images) // NUM_PHOTOS)  # from everywhere in the split
    pooled = [each.mean(axis=1) for each in _read(features, train_images[::step])]
    parts = principal_components(np.concatenate(pooled))
    count = len(EVIDENCE)
    zeros, ones = np.zeros(count), np.ones(count)
    confidence = Confidence(**parts, center=zeros, scale=ones, weights=ones, bias=0.0)

    evidence, captions = [], []
    for batch in _read(features, dev_images):
        results = captioner.generate_results(batch, len(batch))
        evidence.append(confidence.evidence(batch, results))
        captions += [result.text for result in results]
    is_right = right_captions(captions, references, least)
    pictures = unfamiliar_images(max(10, len(captions) // PHOTOS_A_PICTURE))
    for start in range(0, len(pictures), BATCH_SIZE):
        batch = captioner.encode(
            [captioner.convert(each) for each in pictures[start : start + BATCH_SIZE]]
        )
        batch = np.asarray(batch)
        results = captioner.generate_results(batch, len(batch))
        evidence.append(confidence.evidence(batch, results))
    evidence = np.concatenate(evidence)
    is_right = np.concatenate([is_right, np.zeros(len(pictures), bool)])
    center, scale = evidence.mean(axis=0), evidence.std(axis=0) + 1e-6
    weights, bias = logistic_regression((evidence - center) / scale, is_right)
    return Confidence(**parts, center=center, scale=scale, weights=weights, bias=bias)


def _read(features, images):
    _, read = features.reader(images)
    for start in range(0, len(images), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(images)))
        yield np.asarray(read(rows), np.float32)


def logistic_regression(inputs, targets, steps=50):
    """Weights (D,) and bias of the likeliest logistic model, by Newton's method.

    Args:
        inputs: float (N, D), scaled.
        targets: bool (N,).

    Example:

    >>> weights, bias = logistic_regression(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> bool(weights[0] > 1), bool(abs(bias) < 1e-6)
    (True, True)
    """
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    solution = np.zeros(inputs.shape[1])
    ridge = np.diag([RIDGE * len(inputs)] * (inputs.shape[1] - 1) + [1e-9])
    for _ in range(steps):
        predicted = 1 / (1 + np.exp(-inputs @ solution))
        gradient = inputs.T @ (predicted - targets) + ridge @ solution
        curvature = (inputs * (predicted * (1 - predicted))[:, None]).T @ inputs + ridge
        step = np.linalg.solve(curvature, gradient)
        solution -= step
        if np.abs(step).max() < 1e-9:
            break
    return solution[:-1], float(solution[-1])

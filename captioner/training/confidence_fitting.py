"""Fits the confidence of a captioner on a dev split; see `tasks/confidence.py`."""

import numpy as np

from captioner.metrics.rightness import least_right_score, right_captions
from captioner.tasks.confidence import Confidence, principal_components
from captioner.training.unfamiliar_images import unfamiliar_images

# Enough that the principal components settle; more photos change them little.
NUM_PHOTOS = 4000
# One unfamiliar picture for so many dev photos: they are rare among what users have.
PHOTOS_A_PICTURE = 5
RIDGE = 1e-2  # of the weights; the evidence is scaled


def fit_confidence(captioner, train_features, dev_features, references, batch_size=16):
    """The `Confidence` of a captioner, with its own sampler.

    Args:
        captioner: an `ImageCaptioner`.
        train_features: iterable of float (B, P, E), of photos it was trained on.
        dev_features: iterable of float (B, P, E), those of the dev photos, in order.
        references: list of list of str, the captions of each dev photo by people.
        batch_size: pictures at a time.

    Returns:
        A `Confidence`, or None where no photo has two references or more, without
        which nothing says how good a caption can be.
    """
    least = least_right_score(references)
    if least is None:
        return None
    pooled, number = [], 0
    for features in train_features:
        pooled.append(np.asarray(features, np.float32).mean(axis=1))
        number += len(pooled[-1])
        if number >= NUM_PHOTOS:
            break
    parts = principal_components(np.concatenate(pooled))
    zeros, ones = np.zeros(5), np.ones(5)
    confidence = Confidence(**parts, center=zeros, scale=ones, weights=ones, bias=0.0)

    evidence, captions = [], []
    for features in dev_features:
        hypotheses = captioner.hypotheses_of(features)
        evidence.append(confidence.evidence(features, hypotheses))
        captions += [several[0].text for several in hypotheses]
    is_right = right_captions(captions, references, least)
    pictures = unfamiliar_images(max(10, len(captions) // PHOTOS_A_PICTURE))
    for start in range(0, len(pictures), batch_size):
        features = captioner.encode_images(pictures[start : start + batch_size])
        hypotheses = captioner.hypotheses_of(features)
        evidence.append(confidence.evidence(features, hypotheses))
    evidence = np.concatenate(evidence)
    is_right = np.concatenate([is_right, np.zeros(len(pictures), bool)])
    center, scale = evidence.mean(axis=0), evidence.std(axis=0) + 1e-6
    weights, bias = logistic_regression((evidence - center) / scale, is_right)
    return Confidence(**parts, center=center, scale=scale, weights=weights, bias=bias)


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

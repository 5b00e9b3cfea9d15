"""METEOR 1.5 and SPICE, which are Java programs: run where they are, else said so.

Both come with `pip install captioner[java]`, and SPICE needs the jars of Stanford
CoreNLP 3.6.0 besides. Nothing here downloads anything.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np

from captioner.processes import child_environment

_CORENLP = "stanford-corenlp-3.6.0"
# The parameters of METEOR 1.5 for English, which its jar uses too.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MODULES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase


class JavaMetricError(RuntimeError):
    """A Java metric cannot be computed here; one line says what is missing."""


def java_version():
    """The version of the installed Java, as "17.0.11".

    Raises:
        JavaMetricError: Java is not installed or fails.
    """
    done = subprocess.run(
        [_java(), "-version"], capture_output=True, text=True, env=child_environment()
    )
    version = re.search(r'"([^"]+)"', done.stderr)
    if done.returncode or not version:
        raise JavaMetricError("`java -version` fails")
    return version[1]


def _java():
    java = shutil.which("java", path=child_environment().get("PATH", os.defpath))
    if java is None:
        raise JavaMetricError("Java is not installed")
    return java


def _package_folder(name, *files):
    """A folder of pycocoevalcap, when it has these files."""
    java_version()
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None:
        raise JavaMetricError("install it: pip install captioner[java]")
    folder = pathlib.Path(package.submodule_search_locations[0], name)
    for file in files:
        if not (folder / file).is_file():
            raise JavaMetricError(f"there is no {folder / file}")
    return folder


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie, 2014), by the jar that pycocoevalcap brings.

    Like BLEU, METEOR of a corpus is not the mean over its captions but is computed
    from counts that are added up over them.

    Args:
        references: for each image, the list of its references, each a list of str
            tokens.

    Raises:
        JavaMetricError: Java, pycocoevalcap or a file of it is missing.

    Example:

    ```python
    meteor = Meteor([[["a", "dog", "runs"], ["the", "dog"]], [["two", "cats"]]])
    statistics = meteor.statistics([["a", "dog"], ["cats"]])
    each = meteor.from_statistics(statistics)
    of_the_corpus = meteor.from_statistics(statistics.sum(axis=0))
    ```
    """

    num_statistics = 23

    def __init__(self, references):
        self._folder = _package_folder(
            "meteor", "meteor-1.5.jar", "data/paraphrase-en.gz"
        )
        self._references = [
            " ||| ".join(" ".join(tokens) for tokens in captions)
            for captions in references
        ]

    def statistics(self, candidates):
        """Aligns one candidate per image: float array (N, 23) of counts.

        Raises:
            JavaMetricError: the program failed.
        """
        lines = [
            f"SCORE ||| {references} ||| {' '.join(tokens)}\n"
            for references, tokens in zip(self._references, candidates, strict=True)
        ]
        try:
            done = subprocess.run(
                [_java()]
                + "-Dfile.encoding=UTF-8 -Xmx2G -jar meteor-1.5.jar".split()
                + "- - -stdio -l en -norm".split(),
                input="".join(lines).encode(),
                capture_output=True,
                cwd=self._folder,
                env=child_environment(),
            )
            rows = [list(map(float, line.split())) for line in done.stdout.splitlines()]
            statistics = np.array(rows).reshape(len(lines), self.num_statistics)
        except (OSError, ValueError) as error:
            raise JavaMetricError("the program failed") from error
        # A perfect alignment has no fragments. The last three: chunks, and the words
        # that are aligned in the candidate and in the reference.
        perfect = (
            (statistics[:, 21] == statistics[:, 0])
            & (statistics[:, 22] == statistics[:, 1])
            & (statistics[:, 20] == 1)
        )
        statistics[perfect, 20] = 0
        return statistics

    @staticmethod
    def from_statistics(statistics):
        """METEOR of an image, or of sums over many: (..., 23) -> (...), in 0..1."""
        length, reference_length, function, reference_function = np.moveaxis(
            statistics[..., :4], -1, 0
        )
        # Content and function words that match, for each module: those of the
        # candidate and those of the reference.
        matches = statistics[..., 4:20].reshape(*statistics.shape[:-1], 4, 4)
        content, reference_content, functions, reference_functions = np.moveaxis(
            matches, -1, 0
        )

        def share(content, functions, length, function):
            matched = (_DELTA * content + (1 - _DELTA) * functions) @ _MODULES
            total = _DELTA * (length - function) + (1 - _DELTA) * function
            return _divide(matched, total)

        precision = share(content, functions, length, function)
        recall = share(
            reference_content, reference_functions, reference_length, reference_function
        )
        mean = _divide(precision * recall, (1 - _ALPHA) * recall + _ALPHA * precision)
        chunks, aligned, reference_aligned = np.moveaxis(statistics[..., 20:], -1, 0)
        fragments = _divide(chunks, (aligned + reference_aligned) / 2)
        return mean * (1 - _GAMMA * fragments**_BETA)


class Spice:
    """SPICE (Anderson et al., ECCV 2016), by pycocoevalcap.

    Args:
        references: for each image, the list of its references, each a list of str
            tokens.

    Raises:
        JavaMetricError: Java, pycocoevalcap, or the CoreNLP models are missing.

    Example:

    ```python
    Spice([[["a", "dog", "runs"]], [["two", "cats"]]]).score_each([["a", "dog"], []])
    ```
    """

    def __init__(self, references):
        folder = _package_folder("spice", "spice-1.0.jar")
        for jar in (f"{_CORENLP}.jar", f"{_CORENLP}-models.jar"):
            if not (folder / "lib" / jar).is_file():
                raise JavaMetricError(
                    f"there is no {jar} in {folder / 'lib'}; "
                    "pycocoevalcap.spice.spice.Spice() downloads it"
                )
        self._references = dict(
            enumerate([" ".join(tokens) for tokens in refs] for refs in references)
        )

    def score_each(self, candidates):
        """Scores one candidate per image: float array (N,) in 0..1.

        Raises:
            JavaMetricError: the program failed.
        """
        from pycocoevalcap.spice.spice import Spice as Original

        texts = {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)}
        try:
            _, scores = Original().compute_score(self._references, texts)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise JavaMetricError("the program failed") from error
        return np.array([score["All"]["f"] for score in scores])


def _divide(a, b):
    return np.divide(a, b, np.zeros(np.shape(b)), where=np.asarray(b) > 0)

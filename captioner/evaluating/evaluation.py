"""What an evaluation found: the scores, and all that they rest on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `str(evaluation)` is a table for a terminal.

    Attributes:
        protocol: dict of what was measured how: preset or predictions, dataset,
            split, number of images, left out and references, sampler, tokenizer,
            versions of the metrics.
        scores: dict of "bleu_1" to "bleu_4", "rouge_l", "cider" and "cider_plain",
            and "meteor" and "spice" where they can be run; see `CaptionScorer`.
        intervals: dict of the same names -> (low, high), the 95 % bootstrap interval.
        scores_each: dict of image id -> dict of the same names: each caption by
            itself.
        captions: dict of image id -> caption.
        caption_scores: dict of image id -> the captioner's own score, where known.
        diversity: dict of what the captions are like; see `metrics.diversity` and
            `metrics.chair`.
            Where there are several captions of an image it has "n_best_self_bleu_4":
            how much these resemble each other.
        calibration: dict of whether the captioner's scores tell good captions from
            bad ones by CIDEr; see `metrics.calibration`. None without such scores.
        confidences: dict of image id -> how likely the caption is right, where known.
        reliability: dict of whether the confidences are what they say; see
            `metrics.reliability` and `metrics.rightness`. None without confidences, or
            where the images have one reference each.
        oracle: dict as `scores`, of the best of several captions of each image by
            CIDEr. None where there is but one.
        comparison: dict of metric -> how much higher it is than that of
            `compare_with`; see `metrics.compare`. None without it.
        other_captions: dict of image id -> dict of the "caption" of `compare_with`
            and its "cider". None without it.
        left_out: dict of image id -> reason, for photos without a caption.
    """

    protocol: dict
    scores: dict
    intervals: dict
    scores_each: dict
    captions: dict
    caption_scores: dict
    diversity: dict
    calibration: dict | None
    confidences: dict
    reliability: dict | None
    oracle: dict | None
    comparison: dict | None
    other_captions: dict | None
    left_out: dict

    def __str__(self):
        width = max(20, *(len(name) + 2 for name in self.protocol))
        lines = [f"{name:<{width}}{value}" for name, value in self.protocol.items()]
        lines += ["", f"{'':20}{'score':>8}   95 % interval"]
        for name, value in self.scores.items():
            low, high = self.intervals[name]
            lines.append(f"{name:<20}{value:8.4f}   {low:.4f} to {high:.4f}")
        if self.comparison:
            lines += ["", f"{'':20}{'other':>8}{'difference':>12}   95 % interval"]
        for name, found in (self.comparison or {}).items():
            low, high = found["interval"]
            lines.append(
                f"{name:<20}{found['other']:8.4f}{found['difference']:+12.4f}   "
                f"{low:+.4f} to {high:+.4f}; better in {found['better']:.1%} of "
                "resamples"
            )
        lines.append("")
        for name, value in self.diversity.items():
            if isinstance(value, dict):
                value = ", ".join(f"{n}: {count}" for n, count in value.items())
            elif isinstance(value, float):
                value = f"{value:.4f}"
            lines.append(f"{name:<20}{'unknown' if value is None else value}")
        if self.oracle:
            lines += ["", "the best of several captions of each image by CIDEr"]
            lines += [f"{name:<20}{value:8.4f}" for name, value in self.oracle.items()]
        if self.calibration:
            lines += ["", f"{'caption score':<20}{'CIDEr':>8}{'images':>8}"]
            lines += [
                f"{found['score']:<20.4f}{found['quality']:8.4f}{found['images']:8}"
                for found in self.calibration["bins"]
            ]
            spearman = self.calibration["spearman"]
            lines.append(
                f"{'rank correlation':<20}"
                + ("unknown" if spearman is None else f"{spearman:8.4f}")
            )
        if self.reliability:
            lines += ["", f"{'confidence':<20}{'right':>8}{'images':>8}"]
            lines += [
                f"{found['confidence']:<20.3f}{found['right']:8.3f}{found['images']:8}"
                for found in self.reliability["deciles"]
            ]
            for name in ("expected_calibration_error", "auroc", "right"):
                value = self.reliability[name]
                shown = "unknown" if value is None else f"{value:.3f}"
                lines.append(f"{name:<28}{shown}")
        return "\n".join(lines)

"""The model card of a preset that `train` writes, for its owner to go on writing."""


def model_card(captioner, dataset, options, fine_tuned, best):
    """The text of README.md.

    Args:
        captioner: `ImageCaptioner`.
        dataset: the name of the dataset.
        options: `TrainingOptions`, as they were used.
        fine_tuned: whether the image network has learned.
        best: dict, the row of the best epoch.
    """
    model, converter = captioner.caption_model, captioner.preprocessor.image_converter
    weights = options.init_from or options.weights
    network = f"`{model.vision_backbone.architecture}`, weights `{weights}`, frozen"
    if fine_tuned:
        network += f"; then the last {options.fine_tune_layers} layers fine-tuned"
    height, width = converter.image_size
    beams = captioner.sampler.rows_per_image
    dev_scores = f"CIDEr {best['dev_cider']:.3f}, BLEU-4 {best['dev_bleu_4']:.3f}"
    decoder = f"{model.num_layers} layers of {model.mixer} mixer and {model.fusion}"
    return f"""# A captioner trained on `{dataset}`

`captioner caption photos/ --preset .` captions a folder with it.

| | |
|---|---|
| Image network | {network} |
| Photos | {height} x {width} pixels, resize mode `{converter.resize_mode}` |
| Decoder | {decoder} fusion, hidden_dim {model.hidden_dim} |
| Vocabulary | {model.vocabulary_size} words |
| Parameters | {model.count_params():,} |
| Dev, {beams} beams | {dev_scores}, after epoch {best["epoch"]} |

`recipe.json` has all options and versions, `scores.json` the scores.
"""

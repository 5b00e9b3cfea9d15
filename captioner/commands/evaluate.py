"""`captioner evaluate`."""

import os

import click

from captioner.commands.dataset_flags import dataset_flags
from captioner.commands.sampler_flags import preset_and_sampler, sampler_flags
from captioner.terminal import EXIT_CODES, import_tensorflow, printable_lines, say


@click.command("evaluate", epilog=EXIT_CODES)
@click.argument("preset", metavar="PRESET_OR_PREDICTIONS")
@click.argument("dataset")
@dataset_flags
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test"]),
    help="[default: test where there is one, else dev]",
)
@click.option(
    "--compare-with",
    metavar="PRESET_OR_PREDICTIONS",
    help="Also score these captions, and test whether the difference is significant.",
)
@sampler_flags
@click.option(
    "--num-hypotheses",
    type=int,
    help="Number of captions per photo (not with greedy). Their diversity and the best "
    "of them by CIDEr are scored as well.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="DIR",
    help="Write report.html, scores.json, and predictions.json and references.json "
    "(COCO formats); n_best.json where there are several captions of a photo.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--java-metrics/--no-java-metrics",
    default=True,
    help="Compute METEOR and SPICE if Java and pycocoevalcap are installed.  "
    "[default: yes]",
)
@click.pass_context
def evaluate_command(
    ctx,
    preset,
    dataset,
    split,
    compare_with,
    output,
    overwrite,
    batch_size,
    java_metrics,
    **sampler_options,
):
    """Score a preset, or captions in a file, on a split of DATASET.

    PREDICTIONS are COCO results (.json), .jsonl, .csv or .tsv, or a folder of .txt
    files, as `captioner caption` writes them, with a caption for each image of the
    split.

    \b
    Examples:
      captioner evaluate run/preset flickr8k:flickr8k
      captioner evaluate run/preset flickr8k:flickr8k --split dev --num-beams 5 -o dev
      captioner evaluate run/preset flickr8k:flickr8k --num-beams 5 --num-hypotheses 5
      captioner evaluate captions.csv flickr8k:flickr8k --split dev
      captioner evaluate run/preset coco:coco --compare-with other/predictions.json
    """
    import_tensorflow()
    from captioner.evaluating.evaluate import REPORT_FILE, evaluate, is_predictions

    given = [name for name, value in sampler_options.items() if value not in (None, ())]
    if given and is_predictions(preset):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{preset} holds finished captions; flags that choose how captions are "
            f"generated apply to a preset, which comes first. Received: {flags}"
        )
    preset, sampler = preset_and_sampler(preset, sampler_options)
    evaluation = evaluate(
        preset,
        dataset,
        split,
        sampler,
        output,
        overwrite,
        batch_size,
        compare_with,
        java_metrics,
    )
    click.echo(printable_lines(evaluation))
    if output:
        say(f"report: {os.path.join(output, REPORT_FILE)}")
    ctx.exit(1 if evaluation.left_out else 0)

"""The flags that choose how captions are generated; `caption`, `evaluate` and `export`
share them."""

import click

from captioner.terminal import import_tensorflow


def preset_and_sampler(preset, options):
    """What a command passes on to its verb.

    Args:
        preset: as it was given.
        options: dict of the values of `sampler_flags`.

    Returns:
        The preset, or a list of it and those of --ensemble-with; and its own sampler
        with the changes that the flags ask for, or None if they ask for none.

    Raises:
        PresetError, ValueError: there is no such preset, or its sampler cannot be
            changed like that.
    """
    options = dict(options)
    others = options.pop("ensemble_with")
    changes = {name: v for name, v in options.items() if v not in (None, ())}
    sampler = _changed_sampler(preset, changes) if changes else None
    return [preset, *others] if others else preset, sampler


def _changed_sampler(preset, changes):
    from captioner import presets

    import_tensorflow()
    from captioner.samplers import SAMPLERS, BeamSampler, GreedySampler, sampler_class

    folder = presets.find_preset(preset)
    try:
        config = presets.read_json(folder, presets.CONFIG_FILE)
        if config.get("class_name") != "ImageCaptioner":
            raise presets.PresetError(
                f"{folder}: holds a {config.get('class_name')}, not an ImageCaptioner"
            )
        own = config["sampler"]
        sampler = sampler_class(own["name"]).from_config(own["config"])
    except (KeyError, TypeError, ValueError) as error:
        presets.verify_preset(folder)  # if it is damaged, that is why
        if isinstance(error, presets.PresetError):
            raise
        raise presets.PresetError(f"{folder}: cannot be rebuilt ({error})") from error
    new_class = SAMPLERS.get(changes.pop("sampler", None))
    if new_class is None and type(sampler) is GreedySampler and "num_beams" in changes:
        new_class = BeamSampler
    return sampler.replaced(new_class, **changes)


def sampler_flags(command):
    """Add the flags that choose a sampler, its options and its constraints."""
    positive = click.FloatRange(min=0)
    for option in reversed(
        [
            click.option(
                "--sampler",
                type=click.Choice(["greedy", "beam", "diverse_beam", "random"]),
                help="Choose how captions are generated.  [default: the preset's]",
            ),
            click.option(
                "--num-beams",
                type=click.IntRange(1, 1024),
                help="Number of beams; 1 is greedy search.",
            ),
            click.option(
                "--length-penalty",
                type=positive,
                help="0 favours short captions, 1 favours long captions.",
            ),
            click.option(
                "--length-normalization",
                type=click.Choice(["average", "gnmt"]),
                help="How the length penalty normalises scores.",
            ),
            click.option(
                "--num-groups",
                type=int,
                help="Number of groups of beams (diverse_beam only).",
            ),
            click.option(
                "--diversity-penalty",
                type=positive,
                help="How much groups avoid each other's words (diverse_beam only).",
            ),
            click.option(
                "--temperature",
                type=positive,
                help="Temperature of sampling; 0 is greedy search (random only).",
            ),
            click.option(
                "--top-k",
                type=int,
                help="Sample from the k most likely words (random only).",
            ),
            click.option(
                "--top-p",
                type=float,
                help="Sample from the most likely words that together have this "
                "probability (random only).",
            ),
            click.option(
                "--seed",
                type=int,
                help="Seed of sampling, for the same captions every time (random "
                "only).",
            ),
            click.option(
                "--min-length",
                type=int,
                help="Minimum number of tokens, including the end token.",
            ),
            click.option(
                "--max-length",
                type=int,
                help="Maximum number of tokens, including the end token.",
            ),
            click.option(
                "--no-repeat-ngram-size",
                type=int,
                help="Never repeat an n-gram of this size.",
            ),
            click.option(
                "--repetition-penalty",
                type=float,
                help="Values above 1 make repeated words less likely.",
            ),
            click.option(
                "--banned",
                multiple=True,
                metavar="TEXT",
                help="Never use this word or phrase; may be repeated.",
            ),
            click.option("--prefix", help="Begin every caption with this text."),
            click.option(
                "--bad-ending",
                "bad_endings",
                multiple=True,
                metavar="TEXT",
                help="Never end a caption with this word or phrase; may be repeated.",
            ),
            click.option(
                "--ensemble-with",
                multiple=True,
                metavar="PRESET",
                help="Average the probabilities with this preset's; may be repeated.",
            ),
        ]
    ):
        command = option(command)
    return command

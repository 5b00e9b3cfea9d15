"""The flags that choose who writes and how words are chosen; `caption`, `evaluate` and
`export` share them."""

import click

from captioner.terminal import import_tensorflow


def chosen(preset, options):
    """The preset, or a list of those that write together; and its sampler, changed as
    the flags ask, or None where they ask nothing."""
    options = dict(options)
    others = options.pop("ensemble_with")
    sampler = _chosen_sampler(preset, options)
    return [preset, *others] if others else preset, sampler


def _chosen_sampler(preset, options):
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if not given:
        return None
    import inspect

    from captioner import presets

    import_tensorflow()
    from captioner.samplers import SAMPLERS, Constraints

    folder = presets.find_preset(preset)
    try:
        own = presets.read_json(folder, presets.CONFIG_FILE)["sampler"]
        name, config = own["name"], dict(own["config"])
        constraints = dict(config.pop("constraints", {}))
        if name == "greedy" and "num_beams" in given:
            name = "beam"
        name = given.pop("sampler", name)
        sampler_class = SAMPLERS[name]
    except (KeyError, TypeError, ValueError):
        return None  # what loads the preset says what is wrong with it
    allowed = {
        argument
        for base in sampler_class.__mro__
        for argument in inspect.signature(base.__init__).parameters
    }
    config = {option: value for option, value in config.items() if option in allowed}
    for option, value in given.items():
        if option in Constraints.__dataclass_fields__:
            constraints[option] = value
        elif option in allowed:
            config[option] = value
        else:
            raise ValueError(
                f"The {name} sampler has no such option. Received: {option}={value}"
            )
    try:
        return sampler_class.from_config({**config, "constraints": constraints})
    except (TypeError, ValueError) as error:
        presets.verify_preset(folder)  # where it is damaged, that is why
        if isinstance(error, ValueError):
            raise
        raise presets.PresetError(f"{folder}: cannot be rebuilt ({error})") from error


def sampler_flags(command):
    """The flags that choose a sampler, its arguments and its constraints, and others
    to write with."""
    positive = click.FloatRange(min=0)
    for option in reversed(
        [
            click.option(
                "--sampler",
                type=click.Choice(["greedy", "beam", "diverse_beam", "random"]),
                help="How words are chosen.  [default: as the preset does]",
            ),
            click.option(
                "--num-beams",
                type=click.IntRange(1, 1024),
                help="Captions followed at a time; 1 is greedy.",
            ),
            click.option(
                "--length-penalty",
                type=positive,
                help="0 favours short captions, 1 long ones.",
            ),
            click.option(
                "--length-normalization",
                type=click.Choice(["average", "gnmt"]),
                help="What the length penalty is a power of.",
            ),
            click.option(
                "--num-groups", type=int, help="Of diverse_beam: groups of beams."
            ),
            click.option(
                "--diversity-penalty",
                type=positive,
                help="Of diverse_beam: how far groups keep apart.",
            ),
            click.option(
                "--temperature", type=positive, help="Of random: 0 is greedy."
            ),
            click.option(
                "--top-k", type=int, help="Of random: draw from the k likeliest words."
            ),
            click.option(
                "--top-p",
                type=float,
                help="Of random: draw from the likeliest words of this probability.",
            ),
            click.option(
                "--seed",
                type=int,
                help="Of random: the same captions of the same batch.",
            ),
            click.option("--min-length", type=int, help="Words, and one for the end."),
            click.option("--max-length", type=int, help="Words, and one for the end."),
            click.option(
                "--no-repeat-ngram-size",
                type=int,
                help="No so many words in a row come twice.",
            ),
            click.option(
                "--repetition-penalty",
                type=float,
                help="Above 1: words that were written become less likely.",
            ),
            click.option(
                "--banned",
                multiple=True,
                metavar="TEXT",
                help="A word or phrase that is not written; may be repeated.",
            ),
            click.option("--prefix", help="What every caption begins with."),
            click.option(
                "--bad-ending",
                "bad_endings",
                multiple=True,
                metavar="TEXT",
                help="What no caption ends in; may be repeated.",
            ),
            click.option(
                "--ensemble-with",
                multiple=True,
                metavar="PRESET",
                help="Average its probabilities, too, at each word; may be repeated.",
            ),
        ]
    ):
        command = option(command)
    return command

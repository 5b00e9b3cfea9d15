"""The optimizer of `train`: AdamW with all that goes with it."""

import keras


def adamw(
    learning_rate,
    steps,
    *,
    warmup_steps=0,
    weight_decay=0.01,
    clip_norm=None,
    ema_steps=0,
    mixed_precision=None,
    replicas=1,
):
    """AdamW (Loshchilov and Hutter, 2019) on a cosine (the same, 2017).

    Args:
        learning_rate: at its highest: it rises in a line over `warmup_steps`, and then
            falls along a cosine to zero at `steps`.
        steps: how many there will be in all.
        warmup_steps: see above.
        weight_decay: not on biases and norms.
        clip_norm: the gradient of all weights together is made no longer than this;
            None leaves it as long as it is.
        ema_steps: over about how many steps a moving average of the weights looks
            back; 0 for no average. `finalize_variable_values` puts it in their place.
        mixed_precision: with "float16" the loss is scaled up as far as it goes, since
            small gradients would be zero.
        replicas: on how many devices the optimizer runs.

    Returns:
        A Keras optimizer.

    Example:

    >>> optimizer = adamw(1e-3, steps=100, warmup_steps=10)
    >>> float(optimizer.learning_rate)
    0.0
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warmup_steps),
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=weight_decay,
        # A replica gives it its share of the gradient, see `train_step.descend`.
        global_clipnorm=clip_norm and clip_norm / replicas,
        use_ema=ema_steps > 0,
        # One step moves the average by 1 / ema_steps.
        ema_momentum=1 - 1 / max(1.0, ema_steps),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if mixed_precision == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer

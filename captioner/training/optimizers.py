"""The optimizer of `train`: AdamW with a schedule, clipping and a moving average."""

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
    """AdamW (Loshchilov and Hutter, 2019) with a cosine schedule (the same, 2017).

    Args:
        learning_rate: the peak learning rate. It rises linearly over `warmup_steps`,
            and then falls along a cosine to zero at `steps`.
        steps: total number of steps.
        warmup_steps: see above.
        weight_decay: not applied to biases and norms.
        clip_norm: maximum norm of the gradient of all weights together; None for no
            limit.
        ema_steps: length in steps of the moving average of the weights; 0 for none.
            `finalize_variable_values` puts the average in place of the weights.
        mixed_precision: with "float16" the loss is scaled up, so that small gradients
            do not become zero.
        replicas: number of devices.

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
        # A replica gives it its share of the gradient, see `train_step.update_weights`.
        global_clipnorm=clip_norm and clip_norm / replicas,
        use_ema=ema_steps > 0,
        # One step moves the average by 1 / ema_steps.
        ema_momentum=1 - 1 / max(1.0, ema_steps),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if mixed_precision == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer

"""One step of gradient descent, for one device and for many.

`ImageCaptioner.fit` takes it through Keras, `train` through its own loop. The loss is
the mean over the real tokens of the whole batch, wherever its parts are: whether the
batch is on one device, spread over several, or done in parts one after the other,
the gradients are the same.
"""

import keras
import tensorflow as tf


def crossentropy(model, batch):
    """The loss that the model was compiled with, as an objective.

    An objective takes a model and a batch, and returns a loss that is a mean, float32
    (), and the weight of that mean, the number of tokens that are in it.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    y_pred = model(x, training=True)
    model.compute_metrics(x, y, y_pred, sample_weight)
    # Keras divides it by the number of replicas, for its own way to the mean.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    loss = model.compute_loss(x, y, y_pred, sample_weight, training=True) * replicas
    if sample_weight is None:
        return loss, tf.cast(tf.size(y), tf.float32)
    return loss, tf.reduce_sum(tf.cast(sample_weight, tf.float32))


def differentiate(model, objective, batch, parts=1):
    """The sums that `update_weights` needs, of one replica's batch.

    Args:
        model: a compiled `CaptionModel` with its optimizer built.
        objective: see `crossentropy`.
        batch: nest of tensors (B, ...).
        parts: into how many equal parts the batch is cut, of which only one at a time
            needs memory.

    Returns:
        List of float32 tensors: the sum of losses, of weights, and for each of the
        trainable variables the gradient of the sum of losses.
    """
    # TensorFlow cannot make the zero gradient of a Keras variable, for one that
    # the loss does not depend on.
    variables = [variable.value for variable in model.trainable_variables]

    def sums(part):
        with tf.GradientTape() as tape:
            loss, weight = objective(model, part)
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables, unconnected_gradients="zero")
        # Scaled up from the mean, in float32, lest float16 overflow.
        gradients = [weight * tf.convert_to_tensor(each) for each in gradients]
        return [weight * tf.cast(loss, tf.float32), weight, *gradients]

    if parts == 1:
        return sums(batch)

    def part(index):
        def rows(x):
            size = tf.shape(x)[0] // parts
            return tf.reshape(
                x[index * size : (index + 1) * size], [-1, *tf.unstack(tf.shape(x))[1:]]
            )

        return tf.nest.map_structure(rows, batch)

    _, totals = tf.while_loop(
        lambda index, _: index < parts,
        lambda index, totals: (
            index + 1,
            [total + each for total, each in zip(totals, sums(part(index)))],
        ),
        (1, sums(part(0))),
        parallel_iterations=1,
        maximum_iterations=parts - 1,
    )
    return totals


def update_weights(model, sums):
    """Update the weights by the sums of `differentiate` from all replicas.

    Returns:
        Dict of float32 tensors (), of the whole batch: `loss`, `weight`, and
        `gradient_norm` before it is clipped.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    loss, weight, *gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    weight = tf.maximum(weight, 1e-6)  # a batch without a word
    # An optimizer of Keras adds up what it is given on all replicas. All of it is here
    # already, since it must be there before it can be clipped.
    gradients = [each / (weight * replicas) for each in gradients]
    scale = model.optimizer.scale_loss(tf.constant(1.0))
    norm = tf.linalg.global_norm(gradients) * replicas / scale
    model.optimizer.apply(gradients, model.trainable_variables)
    return {"loss": loss / weight, "weight": weight, "gradient_norm": norm}


def train_step(model, batch):
    """Both of these, by cross-entropy: what `CaptionModel.train_step` is."""
    logs = update_weights(model, differentiate(model, crossentropy, batch))
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(logs["loss"], sample_weight=logs["weight"])
    return model.get_metrics_result()

"""An image network of a user's own: any `keras.Model` that makes a grid of features."""

import keras

# What of Keras a configuration may name. Its other layers run code that they are given,
# or read files.
MODULES = (
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.random",
    "keras.regularizers",
)
INNER_MODULES = ("keras.src.models.", "keras.src.ops.", "keras.src.layers.")
REFUSED = {
    "FlaxLayer",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
}
# Values that JSON does not have; with them comes no class.
VALUES = {"__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
VALUES |= {"__tuple__"}


def network_grid(network, image_size=None):
    """The size of photos that a network takes, and the shape of its features of one.

    Args:
        network: a `keras.Model`.
        image_size: (height, width), where the network takes photos of any size.

    Returns:
        (height, width) in pixels, and (h, w, E).

    Raises:
        ValueError: it does not take float RGB pixels (B, H, W, 3), or does not return
            a grid (B, h, w, E).
    """
    takes = getattr(network, "input_shape", None) if network.built else None
    if isinstance(takes, tuple) and len(takes) == 4:
        height, width = image_size or takes[1:3]
        fits = (height, width) == tuple(
            own or given for own, given in zip(takes[1:3], (height, width))
        )
    else:
        height, width = image_size or (None, None)
        fits = takes is None or isinstance(takes, dict)
    if not fits or not height or not width:
        raise ValueError(
            "A network of your own must take photos (B, height, width, 3). If it takes "
            "several sizes, set image_size. Received: "
            f"network.input_shape={takes}, image_size={image_size}"
        )
    try:
        made = network(keras.KerasTensor((None, height, width, 3), "float32"))
        shape = tuple(made.shape)
    except Exception as error:  # whatever the network's own code raises
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"The network fails on photos (B, {height}, {width}, 3): {reason}"
        ) from error
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "A network of your own must return a grid of features (B, height, width, "
            "channels), like Keras' networks with include_top=False. "
            f"Received: a network that returns {shape}"
        )
    return (height, width), shape[1:]


def deserialize_network(config):
    """A `keras.Model` from what `keras.saving.serialize_keras_object` made of it.

    Raises:
        ValueError: it names a class that is neither one of Keras' harmless layers nor
            registered, or is no model.
    """
    check_classes(config)
    network = keras.saving.deserialize_keras_object(config, safe_mode=True)
    if not isinstance(network, keras.Model):
        raise ValueError(f"not a keras.Model but a {type(network).__name__}")
    return network


def check_classes(config):
    """Refuse a configuration that names code other than Keras' own or registered."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, (list, tuple)):
            waiting += each
        if not isinstance(each, dict):
            continue
        waiting += each.values()
        if "class_name" not in each:
            continue
        name, module = each["class_name"], each.get("module")
        registered = each.get("registered_name") or name
        if name == "function":  # Keras looks it up by this name alone
            name = registered = each.get("config")
            module = None
        if name in VALUES or keras.saving.get_registered_object(registered):
            continue
        keras_module = module in MODULES or str(module).startswith(INNER_MODULES)
        if not keras_module or name in REFUSED:
            raise ValueError(
                f"a preset must not name {name}, unless it is registered with "
                "keras.saving.register_keras_serializable or in the custom_objects. "
                f"Received: {module}.{name}"
            )

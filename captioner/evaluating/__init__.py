"""Score captioners and captions: `evaluate`."""

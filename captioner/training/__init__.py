"""Train captioners: `train`."""

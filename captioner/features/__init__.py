"""Image features: computed from photos, and kept on disk."""

"""Caption folders of photos: `caption` and `merge`."""

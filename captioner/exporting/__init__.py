"""Export captioners: `export`."""

"""Image files to pixels: finding, decoding, resizing and changing photos."""

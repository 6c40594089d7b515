"""Image files to pixels: decoding, and the resize and centre crop of preprocessing."""

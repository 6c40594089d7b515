"""From folders of images to batches: lists, pixels, plans, betons, loaders."""

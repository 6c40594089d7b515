"""Augmentation: settings, the plan of an epoch, transforms on the device, mixup and CutMix."""

"""Training: the epoch loop over steps on a device, and the features that the frozen part gives."""

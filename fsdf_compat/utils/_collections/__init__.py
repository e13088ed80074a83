"""The parts of `utils.collections`."""

"""The parts of `utils.time`."""

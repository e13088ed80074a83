"""The parts of `platforms`."""

"""The parts of `local`."""

"""The parts of `app.trace`."""

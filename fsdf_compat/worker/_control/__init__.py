"""Parts of `control`."""

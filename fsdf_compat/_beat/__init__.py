"""Parts of `beat`."""

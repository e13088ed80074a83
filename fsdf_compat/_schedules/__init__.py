"""Parts of `schedules`."""

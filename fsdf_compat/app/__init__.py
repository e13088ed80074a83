"""The application: configuration, tasks, and how messages leave."""

"""The tasks' metrics."""

"""Grid search: its trials, what became of them, and which end early."""

"""Which of two models is better, and whether the difference is more than chance: by their answers record by record."""

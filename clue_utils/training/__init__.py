"""Fine-tuning, evaluation and prediction of one run."""

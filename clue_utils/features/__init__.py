"""Text to ids, the cache of features, and batches."""

"""Answering over HTTP: requests are joined to batches for a model; a page, and a description of the addresses."""

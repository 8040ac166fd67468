"""Encoders and heads that PaddleNLP has none of, or that it computes otherwise than they were published."""

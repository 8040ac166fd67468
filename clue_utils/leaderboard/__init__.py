"""Predictions as the CLUE leaderboard takes them: written, zipped and checked."""

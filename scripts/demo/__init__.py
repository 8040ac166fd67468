"""The demo that the project makes itself: records of the ten tasks and a tiny random model."""

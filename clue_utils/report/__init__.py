"""Tables and pages on the trials of grid searches."""

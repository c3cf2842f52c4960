"""Score: the loss of every candidate on the example data."""

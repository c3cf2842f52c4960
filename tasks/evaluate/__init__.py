"""Evaluate: metrics of a model on held-out data, example by example."""

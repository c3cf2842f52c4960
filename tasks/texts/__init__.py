"""Texts on their way through a model: where an answer begins, which texts share a batch, vectors of texts."""

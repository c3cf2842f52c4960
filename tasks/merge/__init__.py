"""Merge: stream the candidates' tensors into one new checkpoint, in bounded memory."""

"""Publish: a complete, verified release, then the alias."""

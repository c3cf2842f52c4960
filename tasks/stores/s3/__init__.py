"""Releases on S3, and on services that speak it."""

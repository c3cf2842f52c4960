"""Releases on the Hub: versions as tags, aliases as branches that are always exactly what they point at."""

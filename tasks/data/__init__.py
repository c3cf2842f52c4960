"""Example and evaluation data: read, checked line by line, known by content."""

"""What a person at the terminal types and sees: options, tables, progress, errors as sentences."""

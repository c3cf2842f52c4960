"""What embeddings have a row for: tokens, and which row of which model belongs to which."""

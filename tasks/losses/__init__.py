"""The loss of a resident model on examples, in nats: one module per model type, and LM_Cocktail's own numbers."""

"""LoRA adapters as PEFT saves them: what they say, and the tensors that a base has with one on it."""

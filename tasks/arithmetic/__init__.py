"""The formulas on tensors, pure torch: used to merge files and to mix models in memory."""

"""Inference: text generation, label probabilities, and the predictor that the registry serves."""

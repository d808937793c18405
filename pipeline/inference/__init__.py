"""Asking a model: text, labels, and the predictor that the registry serves."""

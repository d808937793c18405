"""Tohum's library (config, data, model, objectives, tuners, training, evaluation, gates, registry)."""

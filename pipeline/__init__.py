"""Tohum's library (config, data, model, tasks, losses, tuners, training, evaluation, gates, registry)."""

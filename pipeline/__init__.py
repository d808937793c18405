"""Tohum's library: the nouns (config, data, model, objectives, tuners, training, evaluation, gates, registry)."""

"""Faster versions of the same formulas and settings for training on a CPU, each with what it buys and its command."""

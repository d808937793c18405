"""Faster versions of the same formulas and settings for training on a CPU, each with its measured gain and command."""

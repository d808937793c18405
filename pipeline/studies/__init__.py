"""Experiments that choose settings: search, ablation, scaling, budget, timing, and probes of a user's file."""

"""Tracking: runs of stages and what they cost, their lineage, and their delivery to an MLflow store."""

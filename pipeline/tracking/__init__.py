"""Tracking: runs of stages with their costs and lineage, and their delivery to an MLflow store."""

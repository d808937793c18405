"""Data sources: one file or package per source, each with `Settings`, `read` and `provenance`."""

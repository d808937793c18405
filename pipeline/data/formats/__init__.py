"""File formats: one file per format, each with `Settings` and `rows`."""

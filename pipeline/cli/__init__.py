"""Verbs for people, one file each."""

from pipeline.entry import entry

__all__ = ["entry"]

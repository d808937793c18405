"""The verbs of the graph: one thin script per stage of dvc.yaml, run as `python -m stages.<name>`."""

from pipeline.entry import entry

__all__ = ["entry"]

"""Scripts of the graph: one per stage of dvc.yaml, run as `python -m stages.<name>`."""

from pipeline.entry import entry

__all__ = ["entry"]

"""The command line `tohum`: one verb per file; files that begin with an underscore are not verbs.

A verb's file gives its docstring (help; its first line in the list), `GROUP` and `ORDER` (its position in the
list), and `command` (see `_command.verb`). Slow imports are made inside its function, so that help comes at
once.
"""

from pipeline.entry import entry  # imported first: an interrupt while libraries are loaded ends the process

__all__ = ["entry"]

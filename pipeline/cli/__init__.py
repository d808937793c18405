"""The command line `tohum`: one verb per file, found by its file; a file that begins with an underscore is no verb.

A verb's file gives its docstring (help; the first line stands in the list), `GROUP` and `ORDER` (where it stands in the
list), and `command` (see `_command.verb`). It imports inside its function whatever costs time, so that help comes at
once.
"""

from pipeline.entry import entry  # imported before all else: an interrupt while libraries are loaded ends the process

__all__ = ["entry"]

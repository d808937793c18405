"""Data sources: one file or package per source, each with `Settings`, `read` and `provenance`.

`read(settings, entry, log)` yields tables of records. A source whose settings have `of`, the name of a source above it
in params.yaml, makes its records from that source's: `read` then takes a function as well, from the name of a source to
its records as tables with id and source. `adds(settings)`, where a source has it, gives the columns that it adds to
each kind, in place of those that `columns` of its settings names.
"""

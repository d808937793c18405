"""Arrow IPC files and streams: Feather files, and the data-*.arrow files of a folder saved by `datasets`."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.config.section import Section
from pipeline.data.formats._arrow import batch_rows, columns_read
from pipeline.data.formats._shape import Row, Shape
from pipeline.data.formats._text import File, on_disk
from pipeline.errors import UserError

_MAGIC = b"ARROW1"


class Settings(Section):
    """No settings: the file describes itself."""


def rows(file: File, _settings: Settings, shape: Shape) -> Iterator[Row]:
    """Rows with their number from 1 on.

    Raises:
        UserError: not Arrow, missing or repeated columns, text that is not UTF-8.
    """
    if file.name.endswith(".gz"):
        raise UserError(f"{file.shown}: an Arrow file is not read through gzip; gunzip it first")
    try:
        with on_disk(file) as path, pa.memory_map(str(path)) as source:
            yield from batch_rows(_batches(source, shape, file.shown), shape, file.shown)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{file.shown}: not a whole Arrow file ({str(error).splitlines()[0][:200]}); fetch or write it again"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{file.shown}: damaged Arrow file ({str(error)[:200]}); fetch it again") from None


def _batches(source: pa.MemoryMappedFile, shape: Shape, shown: str) -> Iterator[pa.RecordBatch]:
    is_file = source.read(len(_MAGIC)) == _MAGIC
    source.seek(0)
    if is_file:
        opened = pa.ipc.open_file(source)
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    else:
        opened = pa.ipc.open_stream(source)
        batches = iter(opened)
    wanted = columns_read(opened.schema.names, shape, shown)
    for batch in batches:
        chosen = batch.select(wanted)
        for start in range(0, len(chosen), 500):
            yield chosen.slice(start, 500)

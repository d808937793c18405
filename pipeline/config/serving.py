"""Settings of the server, `tohum serve`. Read outside the graph: a change retrains nothing."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section

Seconds = Annotated[float, Field(gt=0)]


class Limits(Section):
    """Most of everything that a client can use up."""

    body_bytes: Positive
    """Longest body of a request; a longer one is answered 413."""
    tokens: Positive
    """Longest answer in tokens, whatever the request asks for; the context of the model may end it before."""
    answers: Positive
    """Most answers of one request: prompts times `n`."""
    seconds: Seconds
    """Longest time for a request, waiting included; then it ends with an error."""
    rows: Positive
    """Answers that are computed together, by model; memory grows with it."""
    queue: Positive
    """Answers that may wait for their turn, by model; more are answered 429 with Retry-After."""
    connections: Positive
    """Connections at once; more are answered 503."""
    unread_pieces: Positive
    """Pieces of a streamed answer that may wait for their reader; the connection of a slower one is closed."""
    requests_per_minute: Positive | None = Field(examples=[60, None])
    """Requests a minute of one key, or of all clients together where no keys are used; null: any number."""


class JournalBounds(Section):
    """Bounds of the journal of consented requests and ratings."""

    megabytes: Positive
    """Size from which the oldest segments are removed."""
    keep_days: Positive
    """Days after which a segment is removed."""


class Serving(Section):
    """Settings of the server."""

    host: str
    """Address to listen on: 127.0.0.1, or another where the file `keys` holds a key."""
    port: Annotated[int, Field(ge=0, le=65535)]
    """Port to listen on; 0: a free one."""
    names: list[str] = Field(examples=[[], ["models.example.org"]])
    """With a host other than 127.0.0.1: the names, with a port unless it is the scheme's own, by which clients call the
    server; a request to another name is refused."""
    keys: str
    """File of hashed API keys, made by `tohum serve --new-key NAME`. While it holds any, every request needs one."""
    threads: Positive
    """Threads of torch."""
    poll_seconds: Seconds
    """Seconds between two looks at the registry for another champion."""
    consent: Literal["ask", "never"]
    """ask: a request with `store: true` is kept in the journal, all others are not; never: none is kept, and
    `store: true` is refused."""
    limits: Limits
    """Most of everything that a client can use up."""
    journal: JournalBounds
    """Bounds of the journal."""

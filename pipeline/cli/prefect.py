"""Serves Prefect's pages and API on 127.0.0.1:4200.

The password is in .tohum/secrets/prefect. TOHUM_PREFECT_PORT sets another port.
"""

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 61
AGAIN = "the server has ended"


@verb("tohum prefect", "TOHUM_PREFECT_PORT=4201 tohum prefect")
def command() -> None:
    """Serves until interrupted."""
    from pipeline.orchestration import servers

    servers.serve("prefect")

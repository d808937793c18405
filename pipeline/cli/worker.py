"""Runs a Prefect worker for this project's deployment.

Makes the work pool and the deployment tohum/local of prefect.yaml where they are missing. Needs a server: `tohum
prefect`, or one of yours in PREFECT_API_URL.
"""

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 62


@verb("tohum worker", "tohum run prefect deployment run tohum/local")
def command() -> None:
    """Becomes the worker."""
    from pipeline.orchestration import servers

    servers.become_worker()

"""Runs a Prefect worker for this project's deployments.

Makes the work pool, the deployments of prefect.yaml and their automations. Needs a server: `tohum stack up`, `tohum
prefect`, or one of yours in PREFECT_API_URL.
"""

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 62


@verb("tohum worker", "tohum run prefect deployment run tohum-train/train")
def command() -> None:
    """Becomes the worker."""
    from pipeline.orchestration import servers

    servers.become_worker()

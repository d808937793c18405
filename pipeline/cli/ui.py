"""Serves MLflow's pages and registry on 127.0.0.1:5000.

The password is in .tohum/secrets/mlflow. TOHUM_MLFLOW_PORT sets another port.
"""

from pipeline.cli._command import verb

GROUP = "Servers and tracking"
ORDER = 60
AGAIN = "the server has ended"


@verb("tohum ui", "TOHUM_MLFLOW_PORT=5001 tohum ui")
def command() -> None:
    """Serves until interrupted."""
    from pipeline.orchestration import servers

    servers.serve("mlflow")

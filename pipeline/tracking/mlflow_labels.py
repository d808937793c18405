"""Labels that people gave to traces in MLflow: expectations named `label` or `expected_response`, by request id.

The sender (pipeline.tracking.mlflow_traces) delivers consented requests as traces with the client request id; its own
assessments repeat the journal and are left out here.
"""

from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking.journal_box import USE

NAMES = ("label", "expected_response")
_OURS = "tohum.rating"
_PAGE = 200


def given(uri: str, experiment: str) -> dict[str, Any]:
    """Request -> label, the newest of each request.

    Args:
        uri: of the tracking server or file.
        experiment: name of the runs' experiment (`runtime.tracking.experiment`); traces are in that with the ending of
            `journal_box.USE`.

    Raises:
        UserError: MLflow does not answer.
    """
    from sqlalchemy.exc import SQLAlchemyError

    labels: dict[str, tuple[int, Any]] = {}
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment + USE)
        token = None
        while found is not None:
            page = client.search_traces(
                locations=[found.experiment_id], max_results=_PAGE, page_token=token, include_spans=False
            )
            for trace in page:
                request = trace.info.client_request_id
                for one in trace.info.assessments if request else []:
                    if one.name not in NAMES or one.expectation is None or _OURS in (one.metadata or {}):
                        continue
                    moment = one.last_update_time_ms or one.create_time_ms or 0
                    labels[request] = max(labels.get(request, (-1, None)), (moment, one.expectation.value), key=_time)
            token = page.token
            if not token:
                break
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"MLflow does not answer ({str(error).partition(chr(10))[0][:200]}); start it, fix runtime.tracking.uri in "
            "params.yaml, or look without --mlflow"
        ) from None
    return {request: label for request, (_, label) in labels.items()}


def _time(one: tuple[int, Any]) -> int:
    return one[0]

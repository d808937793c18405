"""Labels of people in MLflow come back by request; those that the sender delivered are left out."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import mlflow_labels


def test_given_has_the_labels_of_people_by_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import AssessmentSource, Expectation, Feedback, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.client import TracingClient

    monkeypatch.chdir(tmp_path)
    client = MlflowClient(uri := f"sqlite:///{tmp_path}/mlflow.db")
    traces = TracingClient(tracking_uri=uri)
    assert mlflow_labels.given(uri, "tohum") == {}
    experiment = client.create_experiment("tohum-use", artifact_location=(tmp_path / "artifacts").as_uri())
    person = AssessmentSource(source_type="HUMAN", source_id="ada")
    said = {
        "req-1": [Expectation(name="label", value="spam", source=person)],
        "req-2": [Feedback(name="label", value="ham", source=person)],
        "req-3": [Expectation(name="label", value="ham", source=person, metadata={"tohum.rating": "rat-1"})],
        "req-4": [Expectation(name="expected_response", value="İzmir", source=person)],
    }
    for number, (request, assessments) in enumerate(said.items()):
        identity = f"tr-{number:032x}"
        info = TraceInfo(
            identity, TraceLocation.from_experiment_id(experiment), 1_000, TraceState.OK, client_request_id=request
        )
        traces.start_trace(info)
        for one in assessments:
            traces.log_assessment(identity, one)
    assert mlflow_labels.given(uri, "tohum") == {"req-1": "spam", "req-4": "İzmir"}


def test_given_names_the_remedy_when_mlflow_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"MLflow does not answer .*look without --mlflow"):
        mlflow_labels.given(f"sqlite:///{tmp_path}/mlflow.db", "tohum")

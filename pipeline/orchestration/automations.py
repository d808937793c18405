"""Automations that every deployment of the project needs, made by `tohum worker` with the deployments.

A run whose process was killed says nothing more: Prefect 3 leaves it Running, or Pending, with its slot, for ever. Two
automations of a self-hosted server set such a run to Crashed, which frees the slot:

- Running: the process sends a heartbeat every 30 s (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml, for runs of
  deployments only). None for `SILENT_S` is a dead process.
- Pending: a worker that has taken a run starts its process at once, which goes to the folder (a pull step) and starts
  the flow. No step further within `START_S` is a dead worker.

Both times leave room for a machine whose cores are all busy, where threads and imports take long.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

SILENT_S = 120
"""Seconds without a heartbeat, four of them, after which a running process counts as dead."""
START_S = 150
"""Seconds between Pending, the pull step and Running after which a worker counts as dead."""
TAG = "tohum"
"""Tag of the deployments that are looked after; other projects' on the same server are left alone."""
_RUN = "prefect.flow-run."
_HEARTBEAT, _PULLED = f"{_RUN}heartbeat", f"{_RUN}pull-step.executed"
# A run that has left Running, for whatever reason, sends no heartbeat and is not dead.
_ENDED = [
    *("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "TimedOut", "Refused", "Cached", "RolledBack"),
    *("Paused", "Suspended", "AwaitingRetry", "AwaitingConcurrencySlot", "Scheduled", "Resuming", "Late"),
]
_ALIVE = {"Running", "Retrying"}


def wanted(deployments: Sequence[UUID]) -> list[AutomationCore]:
    """The automations for these deployments, as they should be on the server."""
    these: dict[str, str | list[str]] = {
        "prefect.resource.role": "deployment",
        "prefect.resource.id": sorted(f"prefect.deployment.{deployment}" for deployment in deployments),
    }
    ended = {f"{_RUN}{name}" for name in _ENDED}
    started = {f"{_RUN}{name}" for name in _ALIVE}
    return [
        _crashed(
            "tohum: a run that has gone silent is Crashed",
            f"no heartbeat for {SILENT_S} s: its process was killed, or its machine is gone",
            after={_HEARTBEAT, *started},
            expect={_HEARTBEAT, f"{_RUN}Pending", *ended},
            seconds=SILENT_S,
            related=these,
        ),
        _crashed(
            "tohum: a run that never started is Crashed",
            f"no start for {START_S} s: its worker was killed",
            after={f"{_RUN}Pending", _PULLED},
            expect={_HEARTBEAT, _PULLED, *started, *ended},
            seconds=START_S,
            related=these,
        ),
    ]


def make() -> None:
    """Makes the automations, or renews them where they are of another version of this file."""
    with get_client(sync_client=True) as client:
        ours = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
        for automation in wanted([deployment.id for deployment in ours]):
            found = client.read_automations_by_name(automation.name)
            for old in found:
                if not _same(old, automation):
                    client.delete_automation(old.id)
            if not any(_same(old, automation) for old in found):
                client.create_automation(automation)


def _same(old: AutomationCore, new: AutomationCore) -> bool:
    """Whether both do the same; ids and times aside."""

    def essence(automation: AutomationCore) -> Any:
        core = AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields)))
        return core.model_dump(mode="json", exclude={"trigger": {"id"}})

    return bool(essence(old) == essence(new))


def _crashed(  # noqa: PLR0913 - the parts of a trigger
    name: str, why: str, after: set[str], expect: set[str], seconds: int, related: dict[str, str | list[str]]
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=why,
        enabled=True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": f"{_RUN}*"},
            match_related=related,
            after=after,
            expect=expect,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=why, force=False)],
    )

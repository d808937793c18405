"""Automations that every deployment of the project needs, made by `tohum worker` with the deployments.

A run whose process was killed says nothing more: Prefect 3 leaves it Running, or Pending, with its slot, for ever. Two
automations of a self-hosted server set such a run to Crashed, which frees the slot:

- Running: the process sends a heartbeat every 30 s (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml, for runs of
  deployments only). None for `SILENT_S` is a dead process.
- Pending: a worker that has taken a run starts its process at once. No start within `START_S` is a dead worker.

Both times leave room for a machine whose cores are all busy, where threads and imports take long.
"""

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

SILENT_S = 120
"""Seconds without a heartbeat, four of them, after which a running process counts as dead."""
START_S = 150
"""Seconds between Pending and Running after which a worker counts as dead."""
TAG = "tohum"
"""Tag of the deployments' runs; other projects' runs on the same server are left alone."""
_RUN = "prefect.flow-run."
_HEARTBEAT = f"{_RUN}heartbeat"
# A run that has left Running, for whatever reason, sends no heartbeat and is not dead.
_ENDED = [
    *("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "TimedOut", "Refused", "Cached", "RolledBack"),
    *("Paused", "Suspended", "AwaitingRetry", "AwaitingConcurrencySlot", "Scheduled", "Resuming", "Late"),
]
_ALIVE = {"Running", "Retrying"}


def wanted() -> list[AutomationCore]:
    """The automations as they should be on the server."""
    ended = {f"{_RUN}{name}" for name in _ENDED}
    started = {f"{_RUN}{name}" for name in _ALIVE}
    return [
        _crashed(
            "tohum: a run that has gone silent is Crashed",
            f"no heartbeat for {SILENT_S} s: its process was killed, or its machine is gone",
            after={_HEARTBEAT, *started},
            expect={_HEARTBEAT, f"{_RUN}Pending", *ended},
            seconds=SILENT_S,
        ),
        _crashed(
            "tohum: a run that never started is Crashed",
            f"no start for {START_S} s: its worker was killed",
            after={f"{_RUN}Pending"},
            expect={_HEARTBEAT, *started, *ended},
            seconds=START_S,
        ),
    ]


def make() -> None:
    """Makes the automations, or renews them where they are of another version of this file."""
    with get_client(sync_client=True) as client:
        for automation in wanted():
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


def _crashed(name: str, why: str, after: set[str], expect: set[str], seconds: int) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=why,
        enabled=True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": f"{_RUN}*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            after=after,
            expect=expect,
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=why, force=False)],
    )

"""Orchestration: DVC's graph as data, the plan, the Prefect flow, guards, locks, repair."""

"""Registers the chosen models: `python -m pipeline.cli.register [--models a,b]`. Outside the graph, after it.

Refuses what must not be registered: a stale graph, a gate that did not pass, a waiver past its date, bytes
that are not those that were evaluated. One version per content; running it twice changes nothing.
"""

import argparse
import os

from pipeline import config
from pipeline.entry import QUIET, entry
from pipeline.errors import UserError
from pipeline.paths import MODELS
from pipeline.registry import admission
from pipeline.tracking import sender


def main() -> None:
    """Admits and registers; a refused model does not keep the others out, but the exit code says so."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.register", description=__doc__)
    parser.add_argument("--models", help="comma-separated; default: register.models of params.yaml")
    parser.add_argument("--sha256", help="comma-separated, one for each of --models: register these bytes only")
    options = parser.parse_args()
    os.environ.update(QUIET)
    params = config.load()
    models = options.models.split(",") if options.models else list(params.register_.models)
    admission.require_models(models, params)
    admission.require_current(models)
    approved = options.sha256.split(",") if options.sha256 else []
    if approved and len(approved) != len(models):
        raise UserError(f"--sha256 names {len(approved)} hashes for {len(models)} models; one for each, in order")
    hashes = dict(zip(models, approved, strict=False))
    refused: list[str] = []
    admitted = []
    for model in models:
        try:
            facts = admission.admit(model, params)
            if facts.sha256 != hashes.get(model, facts.sha256):
                raise UserError(f"{model}: its sha256 is {facts.sha256}, {hashes[model]} was approved; look again")
            admitted.append((model, facts))
        except UserError as error:
            refused.append(str(error))
    if admitted:
        sender.require_usable(params.runtime.tracking.uri)
        if params.runtime.tracking.enabled:
            sender.drain(timeout_s=60)
        from pipeline.registry import Registry, reachable

        with reachable(params.runtime.tracking.uri):
            registry = Registry(params)
            for model, facts in admitted:
                version, new = registry.register(facts, MODELS / model)
                state = "registered" if new else "already there"
                print(f"{version.name} version {version.version}: {state}, candidate, model sha256 {facts.sha256}")
    if refused:
        raise UserError("\nerror: ".join(refused))


if __name__ == "__main__":
    entry(main)

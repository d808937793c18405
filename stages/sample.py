"""Stage sample: data/raw and data/tokens -> data/samples, split, deduplicated and decontaminated."""

from pipeline import config, integrity
from pipeline.data.samples import describe, sample
from pipeline.paths import RAW, SAMPLES, TOKENS
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Reads `sample` and `split` of params.yaml."""
    params = config.load()
    with tracked_stage("sample", params) as run:
        with run.work():
            integrity.require_admitted("tokens", "documents")
            for record_kind in integrity.kinds_in(RAW):
                integrity.require_admitted("raw", record_kind)
            ledger = sample(params, RAW, TOKENS, SAMPLES, params.runtime.progress)
        for kind, account in ledger.items():
            run.log({f"{kind}_{split}": n for split, n in account["kept"].items()})
            run.log({f"{kind}_removed_{reason}": n for reason, n in account["removed"].items()})
    print(describe(ledger))


if __name__ == "__main__":
    entry(main)

"""Stage download: every source of params.yaml -> data/raw, with provenance and row counts."""

from pipeline import config
from pipeline.data.collect import collect, describe
from pipeline.paths import RAW
from pipeline.tracking.stage import tracked_stage
from stages import entry


def main() -> None:
    """Reads `download.sources` of params.yaml."""
    params = config.load()
    with tracked_stage("download", params) as run:
        with run.work():
            summary = collect(params.download, RAW, params.runtime.progress)
        rows = [n for account in summary.values() for n in account["rows"].values()]
        run.log({f"rows_{key}": sum(n[key] for n in rows) for key in ("kept", "rejected", "sampled_out")})
    print(describe(summary))


if __name__ == "__main__":
    entry(main)

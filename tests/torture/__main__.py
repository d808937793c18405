"""All programs of this folder, or those named on the command line; each result is kept in results/<program>.json."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"


def main(chosen: list[str]) -> int:
    """The exit code: 0 if every promise held."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    if unknown := sorted(set(chosen) - set(known)):
        print(f"error: no program {', '.join(unknown)}; one of: {', '.join(known)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    broken = []
    for name in chosen or known:
        command = [sys.executable, "-m", f"tests.torture.{name}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            print(f"{name:<20} gave no result (exit code {done.returncode})", flush=True)
            broken.append(name)
            continue
        (RESULTS / f"{name}.json").write_text(done.stdout, encoding="utf-8")
        print(f"{name:<20} {found['held']:>4} of {found['tried']:<4} {found['promise']}", flush=True)
        if done.returncode:
            broken.append(name)
    if broken:
        print(f"error: broken: {', '.join(broken)}; see {RESULTS}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

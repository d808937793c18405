"""Stage code: for every other stage, the code that can change its outs -> data/code/<stage>.json."""

import yaml

from pipeline import closure, config, files, syntax
from pipeline.paths import CODE, CODE_OF_STAGES, DVC_YAML
from stages import entry


def main() -> None:
    """Reads dvc.yaml, the sources, and the names of parts in params.yaml; imports no part."""
    params = config.load()
    graph = yaml.safe_load(DVC_YAML.read_text(encoding="utf-8"))
    found = closure.stages(params, graph)
    with files.replace_folder(CODE_OF_STAGES) as folder:
        for stage, code in found.items():
            files.write_text(folder / f"{stage}.json", closure.rendered(code))
    paths = sorted(set().union(*found.values()))
    syntax.keep(CODE / path for path in paths if path.endswith(".py"))
    print(f"  {len(found)} stages, {len(paths)} files")


if __name__ == "__main__":
    entry(main)

#!/bin/sh
# `tohum VERB ...`: runs the command line of the project that the working folder lies in, with that project's own code
# and environment; so a second checkout, or a folder below .tohum/try, runs its own. `make setup` puts this file into
# .venv/bin.
project=$(pwd -P)
until [ -f "$project/dvc.yaml" ] && [ -d "$project/pipeline/cli" ]; do
    if [ "$project" = / ]; then
        echo "error: $(pwd -P): no folder from here upwards holds a dvc.yaml and pipeline/cli; go into a project" >&2
        exit 1
    fi
    project=$(dirname "$project")
done
python=$project/.venv/bin/python
[ -x "$python" ] || python=$(dirname "$0")/python
if [ ! -x "$python" ]; then
    echo "error: $project/.venv: no Python environment; run \`make setup\` in $project" >&2
    exit 1
fi
TOHUM_FROM=$(pwd -P)
export TOHUM_FROM
cd "$project" && exec "$python" -m pipeline.cli "$@"

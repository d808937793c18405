#!/bin/sh
# `tohum VERB ...`: runs the command line of the project that the working folder lies in, with that project's own code
# and environment; so a second checkout, or a folder below .tohum/try, runs its own. `make setup` puts this file into
# .venv/bin.
TOHUM_FROM=$(pwd -P 2>/dev/null)
case $TOHUM_FROM in
/*) ;;
*) # dash prints nothing and succeeds, bash fails
    echo "error: the working folder no longer exists; go into a project and run the command again" >&2
    exit 1
    ;;
esac
export TOHUM_FROM
project=$TOHUM_FROM
until [ -f "$project/dvc.yaml" ] && [ -d "$project/pipeline/cli" ]; do
    if [ "$project" = / ]; then
        echo "error: $TOHUM_FROM: no folder from here upwards holds a dvc.yaml and pipeline/cli; go into a project" >&2
        exit 1
    fi
    project=$(dirname "$project")
done
python=$project/.venv/bin/python
# Without one of its own: the python beside this file, also when it was called by a relative path or a symbolic link.
[ -x "$python" ] || python=$(dirname "$(readlink -f "$0")")/python
if [ ! -x "$python" ]; then
    echo "error: $project/.venv: no Python environment; run \`make setup\` in $project" >&2
    exit 1
fi
unset PYTHONSAFEPATH # with it `python -m` does not find the modules of the working folder
cd "$project" && exec "$python" -m pipeline.cli "$@"

"""`python -m pipeline.cli VERB ...`, as which `tohum VERB ...` is run."""

from pipeline.cli._command import main

if __name__ == "__main__":
    main()

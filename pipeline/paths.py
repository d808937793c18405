"""Paths of files in a project. All but the code's own folders are relative to the working folder."""

from pathlib import Path

PACKAGE = Path(__file__).parent
CODE = PACKAGE.parent
"""The folder that holds the code now running, its params.yaml and profiles; not always the working folder."""

# Written by people.
PARAMS = Path("params.yaml")
DVC_YAML = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
INPUTS = Path("inputs")
PROFILES = Path("infra/profiles")
JOURNAL = Path("journal")
"""Consented requests and ratings, written by the server; ignored by git and by DVC."""
VARIATIONS = Path("infra/ablation.yaml")
SCALING = Path("infra/scaling.yaml")

# Outs of the graph's stages.
DATA = Path("data")
CODE_OF_STAGES = DATA / "code"
"""A file per stage: the code that can change its outs."""
RAW = DATA / "raw"
PROVENANCE = RAW / "provenance.json"
TOKENS = DATA / "tokens"
TOKENIZER = TOKENS / "tokenizer"
SAMPLES = DATA / "samples"
MODELS = Path("models")
REPORTS = Path("reports")
TRAINING = REPORTS / "training"
EVALUATION = REPORTS / "evaluation"
GATES = REPORTS / "gates"
RUNS = REPORTS / "runs"
MODEL_PAGES = REPORTS / "models"
"""A page per model of the graph."""
REVIEWS = REPORTS / "review"
"""Pages of candidates beside their champions; no out of any stage."""
WATCH_PAGES = REPORTS / "watch"
"""A page per watched model; no out of any stage."""

# Written by `tohum serve`.
OBSERVATIONS = Path("journal/observations")
"""Counts of every request to a served model, a file a day."""

# Work in progress, caches and secrets: ignored by git and no out of any stage.
WORK = Path(".tohum")
STATE = WORK / "state"
LOCKS = WORK / "locks"
QUEUE = WORK / "tracking"
"""Records of runs that wait for delivery to MLflow."""
SECRETS = WORK / "secrets"
DOWNLOADS = WORK / "downloads"
ANSWERS = WORK / "answers"
"""Answers of chat models that sources asked, by prompt, model and settings."""
REGISTRY = WORK / "registry"
"""Copies of registered versions, read and compared before use."""
FLOW = WORK / "flow"
STACK = WORK / "stack"
"""Databases, artifacts and logs of `tohum stack`."""
RUN_CHECKOUTS = WORK / "runs"
"""A git worktree for each run of a deployment that works on its own checkout."""
MEASURES = WORK / "measures"
"""Results of single measures, used again while nothing that they depend on has changed."""
CODE_CACHE = WORK / "code.json"
"""Parsed summary of each source file, by its SHA-256."""
WATCH = WORK / "watch"
"""A folder per watched model: reference, vocabulary, and the looks so far."""
STUDIES = WORK / "studies"
SEARCHES = WORK / "search.db"

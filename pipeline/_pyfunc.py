"""The model that MLflow stores as code: run by `mlflow.pyfunc.load_model`, which then calls `predict`.

The registry saves this file (models-from-code) beside a copy of the package, so that loading needs neither a
pickle nor this checkout.
"""

from pathlib import Path

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipeline.serving import Speaker


class Served(PythonModel):
    """A table or a list of texts in, a table of answers out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model folder that was uploaded."""
        self._speaker = Speaker(Path(context.artifacts["model"]))

    # No type hints: MLflow would read a signature out of them and leave ours aside.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answers to the first column of the input; `params` are generation settings."""
        import pandas as pd

        texts = model_input.iloc[:, 0].tolist() if hasattr(model_input, "iloc") else list(model_input)
        return pd.DataFrame(self._speaker.answer(texts, params))


set_model(Served())

"""Data gates and the model gate: expectations validated with Great Expectations, one file per boundary."""

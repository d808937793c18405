"""Rating of two answers of a model, by a person in the terminal or by a function: a file below inputs/ a round."""

"""Watch of a served model: counts of its requests, drift against a reference, accuracy from late labels."""

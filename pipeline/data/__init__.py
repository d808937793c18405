"""Records from their sources to training: reading, cleaning, splitting, tokenising, sampling."""

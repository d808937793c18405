"""Reports: the page that compares models, its plots, the choice of a method, the verdicts on experiments."""

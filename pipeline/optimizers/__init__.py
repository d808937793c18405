"""By which rule weights move. Each file is one rule: `build(settings, groups) -> torch.optim.Optimizer`."""

"""How much each example counts. Each file is one rule: `build(settings, labels) -> (losses_B, batch) -> weights_B`."""

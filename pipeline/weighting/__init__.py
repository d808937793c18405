"""How much each example counts. Each file is one rule: `build(settings) -> (losses_B, batch) -> weights_B`."""

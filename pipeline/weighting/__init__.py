"""How much each example counts. Each file is one rule: `build(settings, labels_N) -> (losses_B, batch) -> weights_B`."""

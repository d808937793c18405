"""The network: architecture, batches, caches, adapters and its folder on disk."""

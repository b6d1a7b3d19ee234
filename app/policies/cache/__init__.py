"""The cache of a source: answers in memory, incremental fetches, and answers shared between replicas."""

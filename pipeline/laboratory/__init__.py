"""Throughput tuning experiments: which parameters are best, with this memory, workload and link."""

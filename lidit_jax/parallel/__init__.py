"""Parallelism: device mesh, sharding rules and multi-process jobs."""

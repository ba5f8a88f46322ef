"""Parallelism over devices and hosts: the mesh, sharding of arrays, multi-process setup.

It decides where arrays live. What memory and time a mesh would need is predicted in
`lidit_jax.planning`; attention over split arrays is in `lidit_jax.attention`.
"""

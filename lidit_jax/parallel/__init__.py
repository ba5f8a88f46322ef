"""Devices that work together: the mesh, which axis of an array is split over it, processes."""

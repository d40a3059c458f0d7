"""A double of NVIDIA's bindings of the driver: what pycuda lacks, CUDA graphs, on pycuda's double."""

from __future__ import annotations

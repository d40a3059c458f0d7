"""NVIDIA's bindings of CUDA."""

"""Our code, its typings and its test doubles, held to the real API of TensorRT, pycuda and CUDA without a GPU."""

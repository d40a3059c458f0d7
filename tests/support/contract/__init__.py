"""Our code, its typings and its test doubles, held to the real API of TensorRT and pycuda without a GPU."""

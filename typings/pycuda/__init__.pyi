"""pycuda, as much of it as is used here; tests/engines/test_gpu_contract.py compares each name with a built one."""

VERSION: tuple[int, ...]
VERSION_TEXT: str

"""A double of pycuda on the CPU: device memory is host memory, and streams run what is queued when they are waited for.

Its names and arguments are held to the real ones by tests/engines/test_gpu_contract.py. What a real driver refuses, it
refuses: calls without a context in this thread, memory that was freed, waiting for a stream that is being recorded,
use after a fork. What is queued runs late, so that who forgets to wait reads rubbish.
"""

from __future__ import annotations

"""On a real GPU: `scripts/test tests/gpu` where there is one, with `secondread[gpu]` installed. Elsewhere they skip."""

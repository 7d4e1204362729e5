"""What tokenmesh costs, measured; installed as ``tokenmesh_benchmarks`` for ``tokenmesh bench``."""

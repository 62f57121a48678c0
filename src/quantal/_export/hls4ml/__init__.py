"""Let hls4ml read quantal's layers with the exact precision of their lists."""

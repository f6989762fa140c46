"""How good it is: metrics, benchmarks, studies."""

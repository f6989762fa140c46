"""How good it is: metrics, comparisons over many runs, reports, and a study with people."""

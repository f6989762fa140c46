"""How it is learnt: rows, then adapters, under the masked and cross-attention losses."""

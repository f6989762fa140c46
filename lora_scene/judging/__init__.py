"""How good one adapter is: metrics, encoders, comparisons of pictures with a scene."""

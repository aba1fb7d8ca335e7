"""Networks: backbones in stages, heads, and the weight files that they begin with."""

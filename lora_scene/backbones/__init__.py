"""The base models: Stable Diffusion 1.x, 2.x and XL behind one small interface."""

import logging

# it lacks nothing: a faster product of 4-bit layers on a CPU, which nothing here needs
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "kernels-community" not in record.getMessage()
)

"""`python -m lora_scene`: the command line without its script."""

import sys

try:
    from lora_scene.cli.main import main
except KeyboardInterrupt:  # a Ctrl-C while libraries are read
    sys.exit(130)
main()

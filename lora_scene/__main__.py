"""`python -m lora_scene`: the command line without its script."""

from lora_scene.cli.main import main

main()

"""Run the commands of a documentation page, so that what it shows can be made again.

python -m benchmarks.run_page docs/gallery.md
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks(page: str) -> list[str]:
    """Return the shell commands of a Markdown page, one text a block, in order."""
    return _BLOCK.findall(page)


def main() -> None:
    """Run a page's blocks in the current folder; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    for block in shell_blocks(parser.parse_args().page.read_text("utf-8")):
        sys.stderr.write(block + "\n")
        subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=True)


if __name__ == "__main__":
    main()

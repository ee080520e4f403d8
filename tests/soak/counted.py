"""`python -m tests.soak.counted FILE MODULE ARGUMENT...`: runs a module, and notes how much it keeps alive.

Resident memory also rises when a process needs more at once than ever before, or when what it frees lies scattered. What
it keeps is seen in the number of blocks that Python has allocated right after a full collection: one line for each look.
"""

import gc
import json
import runpy
import sys
import threading
import time
from pathlib import Path

_EVERY_SECONDS = 30.0


def main() -> None:
    """Run the module in the main thread, and look from another one."""
    file, module, *arguments = sys.argv[1:]
    began = time.monotonic()
    threading.Thread(target=_look, args=(Path(file), began), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _look(file: Path, began: float) -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        gc.collect()
        line = json.dumps({"minute": (time.monotonic() - began) / 60, "blocks": sys.getallocatedblocks()}) + "\n"
        with file.open("ab", buffering=0) as report:
            report.write(line.encode())


if __name__ == "__main__":
    main()

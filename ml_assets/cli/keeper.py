"""Runs Dagster for `ml-assets up` and ends it with `up`, however that ends: SIGKILL, too.

Run as a module, never imported: `python -m ml_assets.cli.keeper MARK COMMAND...`, in a session of its own, so that
neither Ctrl-C nor a closed terminal reaches it. Its standard input is a pipe that `up` holds and never writes to;
its end is the end of `up`. A parent-death signal would be Linux's alone, and is not inherited by grandchildren.
"""

import os
import select
import signal
import subprocess
import sys

from ml_assets.cli.session import STOP_SECONDS, end


def main(mark: str, *command: str) -> int:
    """Run `command` until it or `up` ends, then end all that has the mark; its exit status."""
    # Only those two ends count. A handler is reset in the child, while an ignored signal would be inherited.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # The child alone holds the other end of this pipe, so the child's end can be waited for like that of `up`.
    alive, held = os.pipe()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[held])
    os.close(held)
    select.select([sys.stdin, alive], [], [])
    child.send_signal(signal.SIGINT)
    try:
        status = child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    end(mark, ask=False)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

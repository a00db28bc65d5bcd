"""Turns itself into a server: detached, with a lock on its folder, then exec.

Run as a script, never imported: `python launch.py LOCK LOG FOLDER UID GID COMMAND...`. It returns as soon
as the server holds the lock. The lock is a POSIX record lock: it survives exec, is not inherited by
children, names its holder's pid, and goes when that process goes, however it goes. So "is the server
alive, and who is it" needs no pid file that could lie after a crash, a reboot or a recycled pid.
"""

import fcntl
import os
import signal
import sys


def main(lock: str, log: str, folder: str, uid: str, gid: str, *command: str) -> None:
    """Start `command` in `folder` as `uid`:`gid`, with its output appended to `log`."""
    ready, started = os.pipe()
    if os.fork():
        # The server must not be the child of whoever needed it first: nobody there would reap it.
        os.close(started)
        sys.exit(0 if os.read(ready, 1) else 1)
    os.setsid()
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(held, True)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    # A caller started with `&` ignores SIGINT, and a server that inherits that cannot be stopped with it.
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGPIPE,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(folder)
    os.umask(0o077)
    if os.geteuid() == 0 and int(uid) != 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.write(started, b"1")
    os.dup2(output, 2)
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main(*sys.argv[1:])

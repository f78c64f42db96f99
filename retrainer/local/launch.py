"""Becomes a container's command after tying its life to the emulator's.

Run as a script, `python -I -S launch.py PARENT_PID COMMAND...`: the kernel kills the process when the thread that
started it ends (prctl(2), PR_SET_PDEATHSIG), so a SIGKILL of the emulator leaves no training or serving behind. A
`preexec_fn` would do the same inside a fork of a process with threads, which may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent_pid, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request reached the kernel.
    if os.getppid() != parent_pid:
        raise SystemExit(1)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])

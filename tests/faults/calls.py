"""Counting a process's calls to the file system, and ending or failing it at one of them.

Calls are counted by Python's audit events, those of `os.fsync` and of the writing of shards, which have no event, by
functions put in their place.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from clipadapt.features import cache

EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Calls:
    """Counts the calls that change files below a folder, and acts at one of them.

    Args:
        root: the folder.
        at: number of the call, from 1.
        kill: whether the process is killed before this call; else the disk is full from this call on.
        copies: folder for a copy of the files before each call; None for none.
    """

    def __init__(self, root, at, kill, copies=None):
        self.root, self.at, self.kill, self.copies = str(root), at, kill, copies
        self.count = 0
        for owner, name in ((os, "fsync"), (cache, "save_file")):
            setattr(owner, name, self.counted(getattr(owner, name)))
        sys.addaudithook(self.hook)

    def counted(self, function):
        """Return a function that counts itself before it does what it did."""

        def call(*arguments):
            self.call(growing=True)
            return function(*arguments)

        return call

    def hook(self, event, arguments):
        """Count an audit event, if it changes a file below the folder."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, os.PathLike)) and str(path).startswith(self.root) and flags & WRITES:
                self.call(growing=True)
        elif event in EVENTS and (isinstance(arguments[0], int) or str(arguments[0]).startswith(self.root)):
            self.call(growing=event in ("os.mkdir", "os.rename"))

    def call(self, growing):
        """Count a call; kill the process before it, or fail it if it needs room on the disk."""
        self.count += 1
        if self.copies:
            shutil.copytree(self.root, Path(self.copies, str(self.count)))
        if self.kill and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.kill and self.count >= self.at and growing:
            raise OSError(28, "No space left on device")

# SPDX-License-Identifier: Apache-2.0
"""A new ext4 in a file, mounted; gone afterwards. What others did to the machine's own disk shall not count: ext4 looks
long for inodes after deletions, and longer without a journal."""
import os
import pathlib
import subprocess

SIZE_BYTES = 4 << 30


class FreshDisk:
    def __init__(self, directory):
        self.file = pathlib.Path(directory) / "disk"
        self.place = pathlib.Path(directory) / "mnt"

    def __enter__(self):
        try:
            self.place.mkdir()
            with open(self.file, "wb") as file:
                file.truncate(SIZE_BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "131072", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.file],
                           check=True)
            subprocess.run(["mount", "-o", "loop", self.file, self.place], check=True)
            os.sync()
        except BaseException:
            self.__exit__()
            raise
        return self.place

    def __exit__(self, *_):
        if os.path.ismount(self.place):
            subprocess.run(["umount", self.place], check=True)
        if self.place.exists():
            self.place.rmdir()
        self.file.unlink(missing_ok=True)

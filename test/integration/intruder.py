# SPDX-License-Identifier: Apache-2.0
"""Another user at a ttrpc socket. A program of its own, since a process with gRPC in it may hang in fork(2).

    intruder.py PATH SERVICE METHOD PAYLOAD_HEX

As nobody it cannot reach the socket. Then it keeps the capability to reach any path, so that only the
server's check of its peer is in the way. Prints how each went: "path <how>", "peer <how>" a hundred times,
<how> being "refused" or "served".
"""
import ctypes
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from integration import ttrpc_rude as t  # noqa: E402

NOBODY = 65534
PR_SET_KEEPCAPS = 8
CAPABILITY_VERSION_3 = 0x20080522
REACH = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

path, service, method, payload = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)


def set_effective(capabilities):
    data = struct.pack("<6I", capabilities, REACH, 0, 0, 0, 0)
    assert libc.capset(struct.pack("<Ii", CAPABILITY_VERSION_3, 0), data) == 0, os.strerror(ctypes.get_errno())


assert libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
os.setgroups([])
os.setresgid(NOBODY, NOBODY, NOBODY)
os.setresuid(NOBODY, NOBODY, NOBODY)
set_effective(0)
try:
    t.connect(path)
    print("path served")
except PermissionError:
    print("path refused")
set_effective(REACH)
for _ in range(100):
    try:
        t.connect(path).call(service, method, bytes.fromhex(payload), timeout=5)
        print("peer served")
    except (t.Closed, OSError):
        print("peer refused")

"""What a worker asks of the allocator and the garbage collector, for arrays that come and go.

A pane of 100,000 sensors is 6 MB. By default the C library gives so much back to the system
each time and takes it anew; clearing those pages costs ten times what is done with them.
"""

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 512 << 20
"""So much free memory is kept for the next arrays."""


def keep() -> None:
    """Keep freed memory for the next arrays. Does nothing where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def settle() -> None:
    """What is there now stays: the collector need not go through a pack's sensors again."""
    gc.collect()
    gc.freeze()

"""What a process does that has a file: its path, and how (r, w; m mapped, mp privately)."""

HOLDS = """
import ctypes, os, sys
map = ctypes.CDLL(None).mmap
map.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR if "w" in sys.argv[2] else os.O_RDONLY)
if "m" in sys.argv[2]:
    map(None, 32768, 3 if "w" in sys.argv[2] else 1, 2 if "p" in sys.argv[2] else 1, fd, 0)
    os.close(fd)
print(1, flush=True)
input()
"""

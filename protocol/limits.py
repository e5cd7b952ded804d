"""What a peer may ask for. Every number from outside is held against one of these first."""

PROTOCOL_VERSION = 1
PAGE_BYTES = 4096

MAX_BLOCKS = 64
MAX_DISKS = 16
MAX_BLOCK_NAME_BYTES = 255
MAX_BLOCK_PAGES = 2**32 - 1
"""A page index travels as a uint32: a block has 16 TiB at most."""

MAX_BATCH_PAGES = 1024
"""4 MiB of raw bytes in a frame; the default of 256 pages makes 1 MiB."""

WINDOW_BYTES = 16 << 20
"""Raw bytes that may be out; 16 frames of 1 MiB. What is out when the guest stops is downtime, what
is not out is a stage that starves: with 8 frames a GiB by zstd took a seventh longer."""

MAX_WINDOW = 4096
REDOS = 3
"""How often one frame goes again, before the migration fails."""

MAX_ENDPOINTS = 255
MAX_LANE = 511
"""A worker that takes the place of a lost one has a number of its own."""
MAX_CONTROL_BYTES = 1 << 20
DEVICE_PIECE_BYTES = 512 << 10
MAX_DEVICE_BYTES = 256 << 20
REASON_CHARS = 4096
MAX_SEQ = 2**63 - 1
EXTENTS_A_MESSAGE = 16_384
PAGES_A_MESSAGE = 65_536

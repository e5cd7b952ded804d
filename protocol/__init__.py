"""What both ends agree on: frames, control messages, tables of states, limits and errors.

Pure: nothing here opens a socket, starts a process, reads a clock or a file.
"""

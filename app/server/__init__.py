"""The edge of the process: who may ask, how many at once, and kept responses before the HTTP parser."""

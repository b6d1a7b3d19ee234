"""Redis as a source: its connections, and a module for each kind of read."""

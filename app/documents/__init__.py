"""Files and variables that people write: read strictly, and each mistake reported with its place."""

"""The JSON plugin's contract: panel data, annotations, discovery."""

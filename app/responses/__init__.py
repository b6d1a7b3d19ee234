"""Answers as bytes: series and tables, their headers, and finished ones kept to be sent again."""

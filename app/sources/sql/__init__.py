"""What the sources that speak SQL share: a read is a template, and an engine is a `Dialect`.

dialect   how an engine writes comments, values and tests
read      what the catalogue's reads say, and the statements that they become
template  the catalogue's SELECT: `{by}` and `{where}` filled from declared labels, and what is wrong with one
rollups   tables that hold fewer rows than the raw one, and which of them answer for which part of a range
rows      the statements that are sent (limited, a row a series, thinned where that is asked for), and their rows as a frame
"""

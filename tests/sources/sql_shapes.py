"""Odd shapes of one and the same template, for both engines: {body} is a SELECT of time, {by} and value with a {where}."""

from __future__ import annotations

RIGHT = {
    "a comment at the end": "{body} -- the newest first",
    "a comment of a dash more": "{body}\n--- {{by}} {{where}} AS title;",
    "a semicolon and a comment after it": "{body}; -- done; really",
    "two semicolons": "{body};\n;\n",
    "a block comment at the end": "{body} /* AS value; {{where}} */",
    "a comment before it": "/* {{by}} */ -- {{nobody:Int64}}\n{body}",
    "a byte order mark": "\ufeff{body}",
    "lines that end as on Windows": "-- one\r\n{body} -- two\r\n;\r\n",
    "a placeholder in a comment within": "{body_commented}",
    "a text that looks like all of it": "{body_texts}",
}
WRONG = {"a comment that nothing closes": "{body} /* open", "a text that nothing closes": "{body} AND 'open"}


def shaped(shape: str, body: str, where: str) -> str:
    """The shape with this body; `where` is where in the body a text or a comment may stand."""
    commented = body.replace(where, f"/* {{by}}, {{where}} -- */ {where}")
    texts = body.replace(where, f"'{{by}}; -- /* {{where}} % $from_ms {{from_ms:Int64}} AS value' <> '' AND {where}")
    return shape.format(body=body, body_commented=commented, body_texts=texts)

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st

from app.responses.gzip_stream import compress_prefix


@given(
    st.binary(max_size=3000),
    st.integers(1, 50),
    st.binary(max_size=300),
    st.sampled_from([0, 1, 65_534, 65_535, 65_536, 200_000]),
)
def test_a_compressed_piece_and_what_follows_are_one_gzip_of_both(start: bytes, times: int, tail: bytes, more: int) -> None:
    tail += b"x" * more
    assert gzip.decompress(compress_prefix(start * times).append(tail)) == start * times + tail

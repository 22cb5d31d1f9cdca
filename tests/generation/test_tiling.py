"""Windows tile the volume without gap or overlap and see their context."""

import pytest

from totalgen.generation.tiling import windows


@pytest.mark.parametrize(
    ("size", "length", "context"), [(384, 96, 0), (384, 96, 8), (128, 64, 8), (100, 32, 5), (48, 96, 8)]
)
def test_kept_parts_tile_the_volume_and_windows_stay_inside(size, length, context):
    tiles = windows(size, length, context)
    assert [t.keep_start for t in tiles] == [0, *[t.keep_stop for t in tiles[:-1]]]
    assert tiles[-1].keep_stop == size
    for t in tiles:
        assert 0 <= t.start <= t.keep_start < t.keep_stop <= t.stop <= size
        assert t.stop - t.start == min(length, size)  # memory is bounded by the window


def test_inner_borders_have_the_context_on_both_sides():
    for one, two in zip(windows(384, 96, 8), windows(384, 96, 8)[1:], strict=False):
        assert one.stop - one.keep_stop >= 8
        assert two.keep_start - two.start >= 8


def test_no_context_gives_the_four_slabs_of_the_paper():
    assert [(t.start, t.stop) for t in windows(384, 96)] == [(0, 96), (96, 192), (192, 288), (288, 384)]


def test_context_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="less than half"):
        windows(384, 96, 48)

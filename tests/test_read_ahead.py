"""Reading ahead: in order, one ahead, and no more held than that."""

import gc
import threading
import time
import weakref

import pytest

from miri_gpu.read_ahead import read_ahead


class Piece:
    def __init__(self, number):
        self.number = number


def test_everything_comes_in_order():
    assert list(read_ahead(lambda i: i * i, range(5))) == [0, 1, 4, 9, 16]
    assert list(read_ahead(lambda i: i, [])) == []


def test_the_next_one_is_read_while_one_is_in_work():
    begun = {i: threading.Event() for i in range(3)}

    def read(i):
        begun[i].set()
        return i

    for i in read_ahead(read, range(3)):
        if i < 2:
            assert begun[i + 1].wait(5)
        if i == 0:
            assert not begun[2].is_set()


def test_small_ones_are_read_together_while_a_large_one_is_in_work():
    sizes = [3, 3, 1, 1, 1, 2]
    begun = [threading.Event() for _ in sizes]

    def read(i):
        begun[i].set()
        return i

    last_begun = [1, 4, 4, 5, 5, 5]
    for i, last in zip(read_ahead(read, range(6), size=sizes.__getitem__), last_begun, strict=True):
        assert all(one.wait(5) for one in begun[: last + 1])
        assert not any(one.wait(0.02) for one in begun[last + 1 :]), i


def test_who_stops_early_does_not_wait_for_what_nobody_wants():
    read = []
    pieces = read_ahead(
        lambda i: (time.sleep(0.05), read.append(i)), range(9), size=lambda i: i < 1
    )
    next(pieces)
    pieces.close()
    assert len(read) <= 2


def test_two_are_held_at_a_time():
    alive = weakref.WeakSet()
    most = []

    def read(i):
        gc.collect()
        most.append(len(alive))  # when another is about to come
        piece = Piece(i)
        alive.add(piece)
        return piece

    for piece in read_ahead(read, range(6)):
        assert piece.number >= 0
        del piece
    assert max(most) <= 1


def test_an_error_of_the_reader_is_raised_where_its_piece_is_due():
    def read(i):
        if i == 1:
            raise OSError("torn")
        return i

    pieces = read_ahead(read, range(3))
    assert next(pieces) == 0
    with pytest.raises(OSError, match="torn"):
        next(pieces)

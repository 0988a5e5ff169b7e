"""Reading ahead: in order, one ahead, and no more held than that."""

import gc
import threading
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

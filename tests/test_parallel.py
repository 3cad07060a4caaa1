from __future__ import annotations

import threading
import time

import pytest

from git_theta_btm.parallel import WORKERS, map_threads


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_results_stand_in_the_order_of_their_items(workers: int, count: int) -> None:
    assert map_threads(lambda item: item * item, range(count), workers) == [item * item for item in range(count)]


def test_results_may_be_none() -> None:
    assert map_threads(lambda _: None, [1, 2, 3], 2) == [None, None, None]


def test_items_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3)
    map_threads(lambda _: meeting.wait(timeout=10), range(3), 3)  # a broken barrier would raise


def test_no_more_threads_than_asked_for() -> None:
    names = map_threads(lambda _: (time.sleep(0.001), threading.get_ident())[1], range(50), 3)
    assert len(set(names)) <= 3
    assert threading.get_ident() not in names


def test_the_first_failure_is_raised_and_stops_the_rest() -> None:
    done = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError(item)
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="3"):
        map_threads(work, range(1000), 2)
    assert len(done) < 100


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_no_failure_is_lost(kind: type[BaseException]) -> None:
    def work(item: int) -> None:
        raise kind

    with pytest.raises(kind):
        map_threads(work, range(4), 2)


def test_the_number_of_workers_is_sensible() -> None:
    assert 1 <= WORKERS <= 8

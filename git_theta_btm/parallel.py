"""A thread pool in thirty lines: ``concurrent.futures`` would cost each filter call 25 ms of imports."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Hashing is bound by memory bandwidth from about eight cores on.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], workers: int = WORKERS) -> list[Result]:
    """``[function(item) for item in items]`` on several threads; the first exception stops the rest and is raised."""
    if workers < 2 or len(items) < 2:
        return [function(item) for item in items]
    results: dict[int, Result] = {}
    failures: list[BaseException] = []
    pending, lock = iter(enumerate(items)), Lock()

    def work() -> None:
        while not failures:
            with lock:
                index, item = next(pending, (None, None))
            if index is None:
                return
            try:
                results[index] = function(item)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)

    threads = [Thread(target=work, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]


def stream_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS
) -> Iterator[Result]:
    """``map(function, items)`` on several threads: in order, and never more than a few results ahead of the reader.

    ``items`` is advanced by the reader's thread. An exception is raised where its result would have stood.
    """
    if workers < 2:
        yield from map(function, items)
        return
    jobs: SimpleQueue[tuple[Item, SimpleQueue[tuple[bool, object]]] | None] = SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            item, answer = job
            try:
                answer.put((True, function(item)))
            except BaseException as error:  # noqa: BLE001 - raised again by the reader's thread
                answer.put((False, error))

    threads = [Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        waiting: deque[SimpleQueue[tuple[bool, object]]] = deque()
        for item in items:
            answer: SimpleQueue[tuple[bool, object]] = SimpleQueue()
            jobs.put((item, answer))
            waiting.append(answer)
            if len(waiting) > workers + 1:
                yield _result(waiting.popleft().get())
        while waiting:
            yield _result(waiting.popleft().get())
    finally:
        for _ in threads:
            jobs.put(None)


def keep_freed_memory() -> None:
    """Let the C library reuse freed blocks of megabytes instead of returning them to the kernel each time.

    Encoding and decoding allocate and free a few of them for each chunk; giving the pages back and faulting them in
    again took 40 % of the processor time. Peak memory stays the same. Only glibc has this knob.
    """
    import ctypes  # 10 ms that unencoded objects never have to pay

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _result(answer: tuple[bool, object]) -> Any:
    done, value = answer
    if not done:
        raise value  # type: ignore[misc]
    return value

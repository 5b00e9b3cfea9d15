"""Threads share memory: nobody takes more than there is, and each has its turn."""

import threading

from captioner.images.memory_budget import MemoryBudget


def test_no_more_is_held_than_there_is():
    budget, most, lock = MemoryBudget(100), [], threading.Lock()

    def work(count):
        for _ in range(50):
            with budget.hold(count):
                with lock:
                    most.append(budget.held)

    threads = [threading.Thread(target=work, args=(n,)) for n in (10, 35, 60, 100, 999)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 250 and max(most) == 100
    assert budget.held == 0


def test_a_large_one_has_its_turn():
    budget, order = MemoryBudget(100), []
    waits = threading.Event()

    def take(count):
        with budget.hold(count):
            order.append(count)

    with budget.hold(50):
        large = threading.Thread(target=take, args=(80,))
        large.start()
        while not budget._waiting:
            waits.wait(0.001)
        small = threading.Thread(target=take, args=(20,))  # it would fit
        small.start()
        while len(budget._waiting) < 2:
            waits.wait(0.001)
        assert order == []
    large.join()
    small.join()
    assert sorted(order) == [20, 80] and order[0] == 80


def test_it_is_given_back_after_an_error():
    budget = MemoryBudget(10)
    try:
        with budget.hold(10):
            raise ValueError
    except ValueError:
        pass
    with budget.hold(10):
        assert budget.held == 10

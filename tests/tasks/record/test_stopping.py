"""The wish to stop, and reasons that are as good as one."""

from tasks.record import stopping


def test_it_is_asked_once_and_stays() -> None:
    assert not stopping.asked()
    stopping.ask()
    assert stopping.asked()
    stopping.clear()
    assert not stopping.asked()


def test_a_reason_is_found_by_the_first_question() -> None:
    lost = False
    with stopping.also(lambda: lost):
        assert not stopping.asked()
        lost = True
        assert stopping.asked()
        lost = False
        assert stopping.asked(), "what ends, ends for good"
    assert stopping.asked()


def test_a_reason_counts_while_its_context_lasts() -> None:
    with stopping.also(lambda: False), stopping.also(lambda: False):
        pass
    with stopping.also(lambda: True):
        pass
    assert not stopping.asked(), "nobody asked while it held"


def test_a_new_run_does_not_forget_a_reason_that_lasts() -> None:
    with stopping.also(lambda: True):
        assert stopping.asked()
        stopping.clear()
        assert stopping.asked()

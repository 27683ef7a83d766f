"""The ledger of a host: what several runtimes take never is more than the limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.core.budget import UNLIMITED, Account, Ledger, Rows

LIMIT, FILE_LIMIT = 100, 60


def a_ledger(cells: int = 64) -> Ledger:
    ledger = Ledger([0] * cells)
    ledger.limits = LIMIT, FILE_LIMIT
    return ledger


def an_account(ledger: Ledger, rows: Rows, incarnation: int) -> Account:
    account = Account()
    account.attach(rows.give(incarnation), lambda: ledger)
    return account


def test_without_a_ledger_everything_fits() -> None:
    account = Account()
    assert account.take_memory(1 << 50)
    assert account.take_file(1 << 50)
    assert account.relaxed
    assert account.limits == (UNLIMITED, UNLIMITED)
    account.attach(1, lambda: None)
    assert account.take_memory(1 << 50)


def test_what_one_has_is_missing_to_the_other() -> None:
    ledger = a_ledger()
    rows = Rows(ledger)
    one, other = an_account(ledger, rows, 5), an_account(ledger, rows, 6)
    assert one.take_memory(60)
    assert not other.take_memory(60)
    assert other.take_memory(40)
    tight = one.relaxed
    assert not tight
    one.give(memory=60)
    assert one.relaxed
    assert other.take_memory(60)
    assert not other.take_file(61)
    assert other.take_file(60)
    assert one.take_memory(1000, anyhow=True)
    assert (ledger.memory, ledger.files) == (1100, 60)


def test_what_it_has_goes_with_it_to_the_next_ledger() -> None:
    first, second = a_ledger(), a_ledger()
    account = an_account(first, Rows(first), 5)
    account.take_memory(30)
    account.attach(Rows(second).give(5), lambda: second)
    assert second.memory == 0  # until something is to be known
    account.take_memory(1)
    assert second.memory == 31
    account.detach()
    account.give(memory=31)
    assert second.memory == 31  # the row may be another's


def test_rows_are_used_again_and_the_table_ends() -> None:
    ledger = a_ledger(cells=4 + 2 * 3)
    rows = Rows(ledger)
    assert [rows.give(i) for i in (5, 6, 5)] == [1, 2, 1]
    assert rows.give(7) == 0
    Account().attach(1, lambda: ledger)
    ledger.write(1, 50, 20)
    rows.take_back(5)
    rows.take_back(5)
    assert (ledger.memory, ledger.files) == (0, 0)
    assert rows.give(7) == 1


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["memory", "file", "give memory", "give file", "lost"]),
        st.integers(1, 70),
    ),
    max_size=40,
)


@given(EVENTS)
def test_in_every_order_the_sums_are_right_and_within_the_limits(
    events: list[tuple[int, str, int]],
) -> None:
    ledger = a_ledger()
    rows = Rows(ledger)
    accounts = [an_account(ledger, rows, i) for i in range(3)]
    for index, event, nbytes in events:
        account = accounts[index]
        others = sum(a.memory for a in accounts), sum(a.files for a in accounts)
        if event == "memory":
            assert account.take_memory(nbytes) == (others[0] + nbytes <= LIMIT)
        elif event == "file":
            assert account.take_file(nbytes) == (others[1] + nbytes <= FILE_LIMIT)
        elif event == "give memory":
            account.give(memory=min(nbytes, account.memory))
        elif event == "give file":
            account.give(files=min(nbytes, account.files))
        else:
            rows.take_back(index)
            accounts[index] = an_account(ledger, rows, index)
        assert ledger.memory == sum(a.memory for a in accounts) <= LIMIT
        assert ledger.files == sum(a.files for a in accounts) <= FILE_LIMIT


def test_threads_that_take_at_once_never_get_more_than_there_is() -> None:
    ledger = a_ledger()
    rows = Rows(ledger)
    accounts = [an_account(ledger, rows, i) for i in range(2)]

    def take(number: int) -> int:
        account = accounts[number % 2]
        got = 0
        for _ in range(500):
            if account.take_memory(7):
                got += 7
            assert ledger.memory <= LIMIT + 7 * 4  # added before it is looked
        return got

    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(take, range(4)))
    assert total == ledger.memory <= LIMIT

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emotion_sweeps.report.html.parameters import Parameter, value_text, varied_parameters
from emotion_sweeps.report.ranking import rank

Make = Callable[..., dict[str, Any]]
Rows = Callable[..., list[Any]]


def axis(*values: Any) -> Parameter:
    return Parameter("x", (), tuple(values))


def test_what_varies_is_found_and_what_moves_together_is_one_axis(make_result: Make, rows_of: Rows) -> None:
    results = [
        make_result(
            f"exp{i}",
            loss=0.3 + i / 100,
            lora={"r": r, "alpha": 2.0 * r},
            scheduler=scheduler,
            config={"lora": {"r": r, "alpha": None, "alpha_ratio": 2.0}, "scheduler": {"name": scheduler}, "seed": i},
        )
        for i, (r, scheduler) in enumerate([(16, "linear"), (32, "linear"), (16, "cosine"), (32, "cosine")])
    ]
    found = varied_parameters(rank(rows_of(*results)).entries)
    assert [(one.name, one.with_names) for one in found] == [("r", ("alpha",)), ("scheduler", ())]
    assert found[0].values == (16.0, 32.0, 16.0, 32.0)
    assert found[1].levels == ["cosine", "linear"]


def test_a_model_stands_for_all_its_settings(make_result: Make, rows_of: Rows) -> None:
    results = [
        make_result(
            f"e{i}", model=name, config={"model": {"name": name, "path": f"p/{name}", "pooling": name}, "seed": i}
        )
        for i, name in enumerate(["a", "b", "c"])
    ]
    assert [(one.name, one.with_names) for one in varied_parameters(rank(rows_of(*results)).entries)] == [("model", ())]


def test_nothing_varies_in_one_trial(make_result: Make, rows_of: Rows) -> None:
    assert varied_parameters(rank(rows_of(make_result())).entries) == []


def test_a_setting_of_text_and_numbers_is_a_category() -> None:
    mixed = axis("auto", 3.0, None, 10.0)
    assert not mixed.numeric and sorted(mixed.position(v) for v in mixed.levels) == [0, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "logarithmic"), [(1e-5, 3e-3, True), (0.0, 0.5, False), (100.0, 900.0, False), (0.011, 0.2, True)]
)
def test_ticks_of_many_values_are_few_and_round(low: float, high: float, logarithmic: bool) -> None:
    values = [low + (high - low) * i / 40 for i in range(41)]
    many = axis(*values)
    assert many.logarithmic is logarithmic and not many.few
    ticks = many.ticks()
    assert 3 <= len(ticks) <= 8 and ticks == sorted(ticks)
    assert all(low <= tick <= high for tick in ticks)
    assert all(f"{tick:.1e}"[2] == "0" or logarithmic is False for tick in ticks)


def test_positions_grow_with_the_values() -> None:
    rates = axis(1e-3, 1e-5, 1e-4, None)
    assert [rates.position(value) for value in rates.levels] == pytest.approx([-5, -4, -3])


def test_values_read_well() -> None:
    texts = [value_text(value) for value in (16.0, 0.05, 2e-5, 0.000123456, 0.0, "cosine", 1234567.0)]
    assert texts == ["16", "0.05", "2e-05", "0.00012", "0", "cosine", "1,234,567"]

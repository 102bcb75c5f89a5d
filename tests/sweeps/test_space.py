"""The search space: parsing, enumeration, zip groups, options' own spaces."""

from __future__ import annotations

import itertools

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution, IntDistribution

from emotion_sweeps.errors import UserError
from emotion_sweeps.sweeps.group_spaces import add_group_spaces
from emotion_sweeps.sweeps.space import parse_space


@pytest.mark.parametrize(
    "arguments",
    [
        ["a=1,2,3", "b=x,y"],
        ["a=range(1,4)", "fixed=7", "b=choice(0.1,0.2)", "c=true,false"],
        ["a=range(3,0,-1)", "b=null,1"],
        ["a=range(0,1,0.25)", "b='a,b',c"],
        ["a=[1,2],[3]", "b={x:1},{x:2}"],
        ["a=sort(3,1,2)", "+b=1,2", "~c"],
    ],
)
def test_cells_are_those_of_hydras_basic_sweeper(arguments):
    parsed = OverridesParser.create().parse_overrides([a for a in arguments if not a.startswith("~")])
    expected = BasicSweeper.split_arguments(parsed, None)[0]
    space = parse_space(arguments)
    ours = [[o for o in space.overrides(cell) if not o.startswith("~")] for cell in space.cells()]
    plain = [sorted(OmegaConf.from_dotlist([o.lstrip("+") for o in cell]).items(), key=str) for cell in ours]
    theirs = [sorted(OmegaConf.from_dotlist([o.lstrip("+") for o in cell]).items(), key=str) for cell in expected]
    if arguments[0] == "a=range(3,0,-1)":  # Optuna's distributions run upwards
        plain, theirs = sorted(plain, key=str), sorted(theirs, key=str)
    assert plain == theirs and space.size() == len(theirs)


def test_command_line_stands_above_params():
    space = parse_space(["a=4", "b=1,2"], {"a": "range(1,9)", "b": "interval(0,1)", "c": "5", "d": "x,y"})
    assert sorted(space.fixed) == ["a=4", "c=5"] and [p.name for p in space.params] == ["b", "d"]


def test_intervals_and_their_kinds():
    space = parse_space(["a=interval(0,1)", "b=tag(log,interval(1e-4,1))", "c=int(interval(1,9))"])
    by_name = {p.name: p.distribution for p in space.params}
    assert by_name["a"] == FloatDistribution(0, 1) and by_name["b"] == FloatDistribution(1e-4, 1, log=True)
    assert by_name["c"] == IntDistribution(1, 9) and space.size() is None


def test_zip_groups_are_one_parameter():
    space = parse_space(["a=tag(zip,choice(1,2))", "c=7,8", "b=tag(zip,range(10,30,10))"])
    assert [space.overrides(cell) for cell in space.cells()] == [
        [f"a={a}", f"b={b}", f"c={c}"] for (a, b), c in itertools.product([(1, 10), (2, 20)], (7, 8))
    ]
    two = parse_space(
        ["a=tag(zip1,choice(1,2))", "b=tag(zip1,choice(3,4))", "c=tag(zip2,choice(5,6))", "d=tag(zip2,choice(7,8))"]
    )
    assert two.size() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=tag(zip,choice(1,2))"], "stands alone"),
        (["a=tag(zip,choice(1,2))", "b=tag(zip,choice(1,2,3))"], "equally many values; a has 2, b has 3"),
        (["a=tag(zip,interval(1,2))", "b=tag(zip,choice(1,2))"], "not intervals"),
        (["a=interval(nan,1)"], "must be finite"),
        (["a=choice(1.0,inf)"], "must be finite"),
        (["a=tag(log,interval(-1,1))"], "must start above 0, got -1"),
        (["a=interval(2,1)"], "low bound must not be above"),
        (["a=range(5,1)"], "at least one value"),
        (["a=1,2", "a=3"], "both fixed and searched"),
        (["a=[1"], "cannot be read"),
        (["name=x,y"], "cannot be searched"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_space(arguments)
    assert "\n" not in str(caught.value)


OPTIONS = {
    "a": {"lr": "interval(0.1,0.2)", "r": "4,8"},
    "b": {"lr": "interval(0.5,0.6)"},
}


def composed(overrides):
    chosen = next((o.split("=")[1] for o in overrides if o.startswith("model=")), "a")
    return OmegaConf.create({"model": {"search_space": OPTIONS[chosen]}, "seed": 1})


def test_each_swept_option_is_searched_in_its_own_space():
    space = add_group_spaces(parse_space(["model=a,b"], {"r": "1,2", "lr": "interval(0,1)"}), composed, frozenset())
    for model, bounds, ranks in (("a", (0.1, 0.2), ("r", (4, 8))), ("b", (0.5, 0.6), ("r", (1, 2)))):
        active = {p.keys[0]: p for p in space.active({"model": model}) if p.name != "model"}
        assert (active["lr"].distribution.low, active["lr"].distribution.high) == bounds
        assert active["r"].distribution.choices == ranks[1] and len(active) == 2
    assert len({p.name for p in space.params}) == len(space.params)  # Optuna knows each under a name of its own


def test_the_chosen_options_space_is_added_and_the_command_line_stands_above_it():
    space = add_group_spaces(parse_space(["model=b", "x=1,2"]), composed, frozenset({"model", "x"}))
    assert {p.name for p in space.params} == {"x", "lr"}
    space = add_group_spaces(parse_space(["model=a,b", "lr=0.3"]), composed, frozenset({"model", "lr"}))
    assert [space.overrides(cell) for cell in space.cells()] == [
        ["lr=0.3", "model=a", "r=4"], ["lr=0.3", "model=a", "r=8"], ["lr=0.3", "model=b"],
    ]  # fmt: skip
    assert space.size() == 3

"""Whole sweeps of the toy app: exactness, states, resume, successors, objectives, replicates, known configs."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
import yaml
from sweep_kit import FOUR, MISSION

from emotion_sweeps.errors import UserError

MORE = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("grid", "random", "qmc", "gp", "nsgaii", "cmaes", "nsgaiii")
]


def overrides_of(study: optuna.Study) -> list[tuple[str, ...]]:
    return [tuple(t.user_attrs["overrides"]) for t in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", *MORE])
def test_mission_command_runs_each_of_six_cells_once_whatever_the_sampler(sweeps, sampler):
    sweeps.run(*MISSION, f"hydra/sweeper/sampler={sampler}")
    study = sweeps.study()
    assert sweeps.states() == ["COMPLETE"] * 6
    cells = [tuple(t.params.values()) for t in study.trials]
    assert cells == [(r, s) for r in (16, 24, 32) for s in ("linear", "cosine")]
    assert [line[1] for line in sweeps.lines("start")] == list("012345")


def test_again_runs_nothing_and_leaves_everything_as_it_was(sweeps):
    sweeps.run(*MISSION)
    before = {p: p.stat().st_mtime_ns for p in sweeps.sweep_dir().glob("[0-9]*/**/*") if p.is_file()}
    sweeps.clear_log()
    sweeps.run(*MISSION, "sweep.workers=1", "tracking=jsonl")
    assert sweeps.lines("start") == []
    assert {p: p.stat().st_mtime_ns for p in sweeps.sweep_dir().glob("[0-9]*/**/*") if p.is_file()} == before


def test_folders_hold_hydras_files_and_the_job_knows_its_place(sweeps):
    sweeps.run("lora.r=8,16")
    for number, r in enumerate((8, 16)):
        hydra = yaml.safe_load((sweeps.sweep_dir() / str(number) / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert hydra["job"]["num"] == number and hydra["mode"] == "MULTIRUN"
        assert hydra["runtime"]["output_dir"] == str(sweeps.sweep_dir() / str(number))
        assert (
            yaml.safe_load((sweeps.sweep_dir() / str(number) / ".hydra" / "config.yaml").read_text())["lora"]["r"] == r
        )


def test_cells_that_resolve_to_one_config_are_run_once(sweeps):
    sweeps.run("lora.alpha=32,null", "lora.alpha_ratio=2,2.0", "lora.r=16,16")
    # alpha=32 with either spelling of the ratio is one config; so is alpha=null
    assert len(sweeps.study().trials) == 2


def test_a_smaller_n_trials_searches_without_repeats_and_is_a_total(sweeps):
    space = ("lora.r=range(8,33,8)", "scheduler=linear,cosine")
    for total in (2, 6, 8):  # the last ones are what the sampler left
        sweeps.run(*space, f"sweep.n_trials={total}", "hydra.sweeper.sampler.n_startup_trials=2")
        params = [tuple(sorted(t.params.items())) for t in sweeps.study().trials]
        assert len(params) == len(set(params)) == total
    sweeps.clear_log()
    sweeps.run(*space)
    assert sweeps.lines("start") == []


@pytest.mark.parametrize("sampler", ["tpe", *MORE[1:3], *MORE[4:6]])
def test_intervals_are_searched_alike_in_one_go_and_in_parts(sweeps, sampler):
    space = ("lora.learning_rate=tag(log,interval(1e-4,1e-2))", "lora.dropout=interval(0.0,0.3)")
    common = (*space, f"hydra/sweeper/sampler={sampler}")
    if sampler == "tpe":
        common = (*common, "hydra.sweeper.sampler.n_startup_trials=2")
    sweeps.run(*common, "sweep.n_trials=5", "sweep.study_name=whole")
    sweeps.run(*common, "sweep.n_trials=3", "sweep.study_name=parts")
    sweeps.run(*common, "sweep.n_trials=5", "sweep.study_name=parts")
    whole, parts = sweeps.study("whole"), sweeps.study("parts")
    assert [t.params for t in whole.trials] == [t.params for t in parts.trials]
    assert len({t.params["lora.dropout"] for t in whole.trials}) == 5


def test_zip_group_pairs_by_position(sweeps):
    sweeps.run("lora.r=tag(zip,choice(8,16))", "lora.alpha=tag(zip,choice(32,64))", "scheduler=linear,cosine")
    rows = {tuple(o for o in overrides if o.startswith("lora")) for overrides in overrides_of(sweeps.study())}
    assert rows == {("lora.r=8", "lora.alpha=32"), ("lora.r=16", "lora.alpha=64")}
    assert len(sweeps.study().trials) == 4


def test_failures_do_not_stop_the_sweep_and_are_tried_again_by_the_next_start(sweeps):
    sweeps.run(*FOUR, fail="lora.r=24")
    assert sweeps.states() == ["COMPLETE", "COMPLETE", "FAIL", "FAIL"]
    failed = sweeps.study().trials[2]
    text = (sweeps.sweep_dir() / str(failed.number) / "error.txt").read_text()
    assert "ValueError: made to fail" in text and "Traceback" in text and "toy.py" in text
    assert failed.user_attrs["error"]["class"] == "ValueError" and failed.user_attrs["status"] == "failed"
    assert len([line for line in sweeps.lines("start") if "lora.r=24" in line[3]]) == 2  # a bug is not retried
    sweeps.run(*FOUR)
    study = sweeps.study()
    assert len(study.trials) == 6 and [t.user_attrs.get("retry_of") for t in study.trials[4:]] == [2, 3]
    done = {tuple(t.user_attrs["overrides"]) for t in study.trials if t.state.name == "COMPLETE"}
    assert len(done) == 4


def test_transient_failures_are_retried_in_the_same_folder(sweeps):
    sweeps.run("lora.r=16,24", fail="lora.r=24", error="OSError", flaky=True)
    assert sweeps.states() == ["COMPLETE"] * 2
    assert (sweeps.sweep_dir() / "1" / "attempts").read_text() == "2"
    sweeps.run("lora.r=16,24", "sweep.max_retries=2", "sweep.study_name=n", fail="lora.r=24", error="OSError")
    assert (sweeps.sweep_dir("n") / "1" / "attempts").read_text() == "3"


def test_identical_early_failures_stop_the_sweep_with_the_error_once(sweeps):
    with pytest.raises(UserError, match=r"first 3 trials failed alike.*ValueError: made to fail") as caught:
        sweeps.run(*MISSION, fail="lora.r")
    assert "\n" not in str(caught.value)
    assert sweeps.states() == ["FAIL"] * 3
    sweeps.run(*MISSION, fail="lora.r=32")
    assert sweeps.states().count("COMPLETE") == 4


def test_a_mistake_in_one_cell_found_by_the_trial_is_infeasible(sweeps):
    sweeps.run("lora.r=16,24", fail="lora.r=24", error="UserError")
    bad = [t for t in sweeps.study().trials if t.state.name == "FAIL"]
    assert [t.user_attrs["status"] for t in bad] == ["infeasible"]
    sweeps.clear_log()
    sweeps.run("lora.r=16,24")  # it would fail again
    assert sweeps.lines("start") == []


@pytest.mark.slow
def test_max_failure_rate_of_the_official_sweeper_fails_the_command_at_its_end(sweeps):
    with pytest.raises(UserError, match="1 of 2 trials failed"):
        sweeps.run("lora.r=16,24", "hydra.sweeper.max_failure_rate=0.1", fail="lora.r=24")
    assert sweeps.states() == ["COMPLETE", "FAIL"]


def test_changed_space_opens_a_successor_that_takes_over_the_finished_trials(sweeps):
    sweeps.run(*FOUR, "sweep.study_name=s", fail="lora.r=24 scheduler=cosine")
    sweeps.clear_log()
    wider = ("lora.r=16,24,32", "scheduler=linear,cosine", "sweep.study_name=s")
    sweeps.run(*wider)
    heir = optuna.load_study(study_name="s.2", storage=f"sqlite:///{sweeps.sweep_dir('s')}/study.db")
    assert heir.user_attrs["predecessor"] == "s" and sweeps.study("s").user_attrs["successor"] == "s.2"
    ran = {line[3] for line in sweeps.lines("start")}
    assert ran == {"lora.r=24 scheduler=cosine", "lora.r=32 scheduler=linear", "lora.r=32 scheduler=cosine"}
    complete = [t for t in heir.trials if t.state.name == "COMPLETE"]
    assert len({tuple(t.params.values()) for t in complete}) == 6
    for trial in complete:
        assert (sweeps.sweep_dir("s.2") / str(trial.number) / ".hydra").is_dir()
    sweeps.clear_log()
    sweeps.run(*wider)  # finds its successor
    sweeps.run(*wider[:2], "sweep.study_name=s.2")  # also by its own name
    assert sweeps.lines("start") == []


@pytest.mark.slow
def test_a_parameter_that_was_fixed_and_is_searched_now_keeps_its_trials(sweeps):
    sweeps.run("lora.r=8,16", "lora.dropout=0.1", "sweep.study_name=s")
    sweeps.clear_log()
    sweeps.run("lora.r=8,16", "lora.dropout=0.1,0.2", "sweep.study_name=s")
    assert {line[3] for line in sweeps.lines("start")} == {"lora.r=8 lora.dropout=0.2", "lora.r=16 lora.dropout=0.2"}


def test_other_objective_or_settings_are_refused_in_one_line(sweeps):
    sweeps.run("lora.r=8,16", "sweep.study_name=s")
    with pytest.raises(UserError, match="minimize loss, and the command asks to maximize macro_f1"):
        sweeps.run("lora.r=8,16", "sweep.study_name=s", "objective.metric=macro_f1")
    with pytest.raises(UserError, match=r"made with training.epochs=.*says 7"):
        sweeps.run("lora.r=8,16", "sweep.study_name=s", "training.epochs=7")
    sweeps.run("lora.r=8,16", "sweep.study_name=s", "hardware.micro_batch_size=4", "sweep.keep=all")  # how, not what


@pytest.mark.slow
def test_fresh_starts_anew_and_leaves_the_old_study_alone(sweeps):
    sweeps.run("lora.r=8,16", "sweep.study_name=s")
    sweeps.run("lora.r=8,16", "sweep.study_name=s", "sweep.fresh=true")
    assert len(sweeps.lines("start")) == 4 and len(sweeps.study("s").trials) == len(sweeps.study("s-2").trials) == 2


def test_a_given_sweep_dir_wins_and_never_mixes_two_studies(sweeps):
    sweeps.run("lora.r=8,16", "hydra.sweep.dir=out")
    assert (sweeps.folder / "out" / "1" / ".hydra").is_dir() and (sweeps.folder / "out" / "study.db").is_file()
    with pytest.raises(UserError, match="holds the trials of study"):
        sweeps.run("lora.r=4,8", "hydra.sweep.dir=out")
    (sweeps.folder / "bare" / "0").mkdir(parents=True)
    with pytest.raises(UserError, match="nothing is overwritten"):
        sweeps.run("lora.r=4,8", "hydra.sweep.dir=bare")


def test_objective_that_the_trial_lacks_names_what_there_is(sweeps):
    with pytest.raises(UserError, match=r"objective.metric=loss: this trial reports macro_f1"):
        sweeps.run("lora.r=8,16,24", drop_metric="loss")


def test_non_finite_objective_is_a_failure_that_names_the_metrics(sweeps):
    sweeps.run("lora.r=8,16", nan=True)
    error = sweeps.study().trials[0].user_attrs["error"]
    assert error == {"class": "NonFiniteObjective", "message": "loss is nan; the metrics there are: loss, macro_f1"}


def test_maximised_metric_and_contradicting_direction(sweeps):
    with pytest.raises(UserError, match="direction=minimize contradicts objective.metric=macro_f1"):
        sweeps.run("lora.r=8,16", "objective.metric=macro_f1", "hydra.sweeper.direction=minimize")
    sweeps.run("lora.r=8,16", "objective.metric=macro_f1", "hydra.sweeper.direction=maximize")
    study = sweeps.study()
    assert study.directions[0].name == "MAXIMIZE" and study.best_params == {"lora.r": 16} and study.best_value > 0.8


def test_evaluations_are_kept_for_the_dashboard(sweeps):
    sweeps.run("lora.r=8,16", evals=3)
    trial = sweeps.study().trials[1]
    assert sorted(trial.intermediate_values) == [1, 2, 3]
    assert trial.user_attrs["evaluation_2"]["step"] == 20
    assert set(trial.user_attrs["evaluation_2"]["metrics"]) == {"loss", "macro_f1"}
    assert trial.value == pytest.approx(min(trial.intermediate_values.values()))


def test_replicates_run_in_seed_folders_and_the_study_sees_the_mean(sweeps):
    sweeps.run("lora.r=8,16", "sweep.replicates=2", "seed=5")
    study = sweeps.study()
    assert len(study.trials) == 2
    for trial in study.trials:
        values = [trial.user_attrs[f"replicate_{i}"][0] for i in range(2)]
        assert trial.value == pytest.approx(sum(values) / 2) and len(set(values)) == 2
        for index in range(2):
            config = sweeps.sweep_dir() / str(trial.number) / f"seed_{index}" / ".hydra" / "config.yaml"
            assert yaml.safe_load(config.read_text())["seed"] == 5 + index
    sweeps.clear_log()
    sweeps.run("lora.r=8,16", "sweep.replicates=2", "seed=5")
    assert sweeps.lines("start") == []


@pytest.mark.parametrize(
    ("keep", "left"),
    [("best", 1), pytest.param("top_k", 2, marks=pytest.mark.slow), pytest.param("all", 4, marks=pytest.mark.slow)],
)
def test_weights_of_losers_are_deleted_and_nothing_else(sweeps, keep, left):
    sweeps.run(*FOUR, f"sweep.keep={keep}", "sweep.keep_top_k=2", result=True)
    folder = sweeps.sweep_dir()
    kept = {n for n in range(4) if (folder / str(n) / "adapter" / "weights").is_file()}
    values = {t.number: t.value for t in sweeps.study().trials}
    assert kept == set(sorted(values, key=lambda n: (values[n], n))[:left])
    assert all((folder / str(n) / "result.json").is_file() for n in range(4))


def test_enqueued_configs_come_first_and_cells_among_them_are_not_repeated(sweeps):
    rows = [{"lora.r": 32, "scheduler": "linear"}, {"lora.r": 20}, {"scheduler": "cosine", "lora.r": 24}]
    (sweeps.folder / "known.yaml").write_text(yaml.safe_dump(rows))
    sweeps.run("lora.r=24,32", "scheduler=linear,cosine", "sweep.enqueue=known.yaml")
    study = sweeps.study()
    assert len(study.trials) == 5  # four cells, and r=20 with the config's own scheduler
    assert [t.params.get("lora.r") for t in study.trials][:3] == [32, None, 24]
    configs = {tuple(sorted(t.user_attrs["overrides"])) for t in study.trials}
    assert len(configs) == 5
    sweeps.clear_log()
    sweeps.run("lora.r=24,32", "scheduler=linear,cosine", "sweep.enqueue=known.yaml")
    assert sweeps.lines("start") == []


def test_enqueue_mistakes_are_one_line(sweeps):
    for value, message in (
        ("nowhere.yaml", "file not found: nowhere.yaml"),
        ("[1,2]", "must be a list of {key: value}"),
        ("[{lora.rr:3}]", "row 1: lora.rr: no such key"),
    ):
        with pytest.raises(UserError, match=message):
            sweeps.run(*MISSION, f"sweep.enqueue={value}")
    assert not (sweeps.folder / "multirun").exists()


@pytest.mark.slow
def test_shipped_list_of_published_configs(sweeps):
    sweeps.run("lora.r=tag(log,int(interval(8,64)))", "sweep.n_trials=6", "sweep.enqueue=published")
    study = sweeps.study()
    assert len(study.trials) == 6 and [t.params.get("lora.r") for t in study.trials[:5]] == [24, 32, 32, 16, 24]


def test_warm_start_guides_the_sampler_and_adds_no_trials(sweeps):
    space = ("lora.r=int(interval(4,64))", "lora.dropout=interval(0,0.5)", "hydra.sweeper.sampler.n_startup_trials=4")
    sweeps.run(*space, "sweep.n_trials=6", "sweep.study_name=first")
    for name, extra in (("cold", ()), ("warm", ("sweep.warm_start_from=first",))):
        sweeps.run(*space, "sweep.n_trials=1", f"sweep.study_name={name}", *extra)
    cold, warm = sweeps.study("cold"), sweeps.study("warm")
    assert len(warm.trials) == len(cold.trials) == 1
    assert [t.params for t in cold.trials] != [t.params for t in warm.trials]
    with pytest.raises(UserError, match="no such study"):
        sweeps.run(*space, "sweep.n_trials=2", "sweep.warm_start_from=nothing")


@pytest.mark.slow
def test_plain_sweep_without_a_space_is_one_trial(sweeps):
    sweeps.run("lora.r=8")
    assert sweeps.states() == ["COMPLETE"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("lora.rr=1,2",), "lora.rr: no such key; did you mean"),
        (("scheduler=linear,cosinus",), "scheduler=cosinus: no such option; did you mean"),
        (("lora.dropout=interval(0,inf)",), "bounds of an interval must be finite"),
        (("lora.learning_rate=tag(log,interval(0,1))",), "must start above 0"),
        (("lora.r=8,16", "lora.r=4"), "both fixed and searched"),
        (("sweep.keep=best,all",), "cannot be searched"),
        (("lora.dropout=interval(0,0.5)", "hydra/sweeper/sampler=grid"), "needs a finite space"),
        (("lora.r=8,16", "sweep.storage=postgresql://u:secret@127.0.0.1:9/x"), "cannot be reached"),
        (("lora.r=8,16", "sweep.storage=/proc/nothing/study.db"), "sweep.storage"),
        (("lora.r=8,16", "sweep.storage=what"), "neither a storage URL"),
        (("lora.r=8,16", "sweep.pruner=wilcoxon"), "needs sweep.replicates > 1"),
        (("lora.r=8,16", "hydra.sweeper.direction=[minimize,maximize]"), "direction has 2 entries"),
        (("lora.r=8,16", "hydra.sweeper.custom_search_space=no.such.thing"), "cannot be imported"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(sweeps, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        sweeps.run(*overrides)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert not list((sweeps.folder).glob("multirun/*/[0-9]*")) and not list(sweeps.folder.glob("multirun/*/*.db"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=0,8", r"lora.r must be >= 1, got 0 \(in the trial lora.r=0\)"),
        ("lora.r=interval(8,64)", r"whole number.*write int\(interval"),
        ("lora.rr=1,2", "lora.rr: no such key; did you mean"),
        ("scheduler=linear,cosinus", "scheduler=cosinus: no such option; did you mean"),
    ],
)
def test_the_products_own_rules_are_checked_for_every_cell(sweeps, override, message):
    with pytest.raises(UserError, match=message):
        sweeps.run(override, product=True)
    assert not (sweeps.folder / "multirun").exists()


def test_the_products_own_config_is_swept(sweeps):
    sweeps.run("lora.r=8,16", "hardware=cpu", product=True)
    assert sweeps.states() == ["COMPLETE"] * 2


def test_damaged_study_files_are_named_and_kept(sweeps):
    sweeps.run("lora.r=8,16", "sweep.study_name=s")
    file = sweeps.sweep_dir("s") / "study.db"
    for damage in (b"not a database at all", file.read_bytes()[:3000] + b"\0" * 9000):
        file.write_bytes(damage)
        with pytest.raises(UserError, match="damaged") as caught:
            sweeps.run("lora.r=8,16", "sweep.study_name=s")
        assert "\n" not in str(caught.value) and file.read_bytes() == damage


def test_config_of_the_official_sweeper_works(sweeps):
    names = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "hydra.sweeper.study_name=off")
    storage = f"hydra.sweeper.storage=sqlite:///{sweeps.folder}/mine.db"
    more = ("hydra.sweeper.direction=minimize", "hydra.sweeper.sampler.seed=3", "hydra.mode=MULTIRUN")
    sweeps.run("search=official", *names, storage, *more)
    study = optuna.load_study(study_name="off", storage=f"sqlite:///{sweeps.folder}/mine.db")
    assert len(study.trials) == 4 and len({tuple(t.params.values()) for t in study.trials}) == 4
    assert all("lora.dropout=0.1" in t.user_attrs["overrides"] for t in study.trials)
    results = yaml.safe_load((sweeps.sweep_dir("off") / "optimization_results.yaml").read_text())
    assert results["best_value"] == study.best_value and results["best_params"] == study.best_params
    sweeps.clear_log()
    sweeps.run("search=official", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
    assert len(sweeps.lines("end")) == 2  # the official sweeper itself, on the same config


def custom_space(config, trial) -> None:
    """A hook as the official sweeper takes it."""
    if trial.params["scheduler"] == "cosine":
        trial.suggest_float("scheduler.num_cycles", 0.3, 0.9)


def overlapping_space(config, trial) -> None:
    trial.suggest_int("lora.r", 1, 2)


@pytest.mark.slow
def test_custom_search_space_hook(sweeps):
    name = f"{__name__}.custom_space"
    sweeps.run(
        "scheduler=linear,cosine", "lora.r=8,16", "sweep.n_trials=5", f"hydra.sweeper.custom_search_space={name}",
        "hydra/sweeper/sampler=random",
    )  # fmt: skip
    for trial in sweeps.study().trials:
        assert ("scheduler.num_cycles" in trial.params) == (trial.params["scheduler"] == "cosine")
        assert any(o.startswith("scheduler.num_cycles") for o in trial.user_attrs["overrides"]) == (
            trial.params["scheduler"] == "cosine"
        )


def test_custom_search_space_may_not_overlap(sweeps):
    with pytest.raises(UserError, match="suggests lora.r, which is already fixed or searched"):
        sweeps.run(
            "scheduler=linear,cosine", "lora.r=8", "sweep.n_trials=8",
            f"hydra.sweeper.custom_search_space={__name__}.overlapping_space",
        )  # fmt: skip


def test_journal_file_storage(sweeps):
    sweeps.run(*FOUR, "sweep.storage=study.log", "sweep.study_name=j")
    backend = optuna.storages.journal.JournalFileBackend(str(sweeps.folder / "study.log"))
    study = optuna.load_study(study_name="j", storage=optuna.storages.JournalStorage(backend))
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4
    sweeps.clear_log()
    sweeps.run(*FOUR, "sweep.storage=study.log", "sweep.study_name=j")
    assert sweeps.lines("start") == []


def test_passwords_stay_out_of_the_run_folders(sweeps, monkeypatch):
    monkeypatch.setenv("STUDY", f"sqlite:///{sweeps.folder}/s3cret.db")
    sweeps.run("lora.r=8,16", "sweep.storage=${oc.env:STUDY}")
    for file in sweeps.sweep_dir().glob("[0-9]*/.hydra/*.yaml"):
        assert "s3cret" not in file.read_text()


def test_marker_names_study_and_storage(sweeps):
    sweeps.run("lora.r=8,16")
    marker = json.loads((sweeps.sweep_dir() / "study.json").read_text())
    assert (
        marker["study_name"] == sweeps.sweep_dir().name and Path(marker["storage"].removeprefix("sqlite:///")).is_file()
    )


@pytest.mark.slow
@pytest.mark.parametrize("search", ["lora", "lora_quick", "best_lora_grid"])
@pytest.mark.parametrize("sweeper", ["study", "optuna"])
def test_shipped_searches_run_under_both_sweepers(sweeps, sweeper, search):
    total = "hydra.sweeper.n_trials=2" if search == "best_lora_grid" else "sweep.n_trials=2"
    sweeps.run(f"search={search}", f"hydra/sweeper={sweeper}", total, "hydra.sweeper.n_jobs=1", product=True)
    assert len({line[3] for line in sweeps.lines("end")}) == 2

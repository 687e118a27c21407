"""Benchmarks: who is timed, what a bar says of the times, and what is written. No time is asserted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from runs import bench
from runs.benchmark import clock, decoders, gpu_bank, moe
from runs.benchmark.case import Bar, Case, Measured, exponent, lazily, memory, times, used
from runs.benchmark.table import holds, interval, line, rows

CPU = torch.device("cpu")


def by_hand(**seconds: list[float]) -> Measured:
    return Measured(seconds, {"slow": 300, "fast": 100})


def test_a_ratio_is_taken_turn_by_turn() -> None:
    measured = by_hand(slow=[3.0, 30.0], fast=[1.0, 10.0])
    assert times("slow", "fast")(measured) == [3.0, 3.0]
    assert memory("slow", "fast")(measured) == [3.0]
    assert used("slow", 60.0, peak=100.0)(measured) == [0.2, 0.02]


def test_the_power_of_growth_is_the_slope_of_the_logarithms() -> None:
    measured = by_hand(a=[1.0, 2.0], b=[4.0, 4.0], c=[16.0, 8.0])
    assert exponent({10: "a", 20: "b", 40: "c"})(measured) == pytest.approx([2.0, 1.0])


def test_a_bar_holds_where_the_whole_interval_does() -> None:
    at_most, at_least = Bar("", lambda m: [], at_most=1.1), Bar("", lambda m: [], at_least=2)
    assert [holds(at_most, *ends) for ends in ((1.0, 1.1), (1.05, 1.2), (1.11, 1.2))] == ["yes", "open", "no"]
    assert [holds(at_least, *ends) for ends in ((2.0, 3.0), (1.9, 3.0), (1.0, 1.9))] == ["yes", "open", "no"]


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    # Of ten values the second and the ninth: 1 - 2 * (1 + 10) / 2^10 = 97.9 %, and one further in would be 89 %.
    assert interval([float(n) for n in range(10, 0, -1)]) == (5.5, 2.0, 9.0)
    assert interval([1.0, 2.0, 4.0]) == (2.0, 1.0, 4.0)


def test_a_contender_with_other_numbers_or_none_is_not_timed_and_its_bars_are_empty() -> None:
    def broken() -> list[torch.Tensor]:
        raise RuntimeError("no kernel\nand more")

    right = torch.arange(1.0, 5.0)
    contenders = {
        "plain": lambda: [right],
        "near": lambda: [right * (1 + 1e-5)],
        "far": lambda: [right * 1.01],
        "other": lambda: [right[:2]],
        "nothing": lambda: [right * torch.nan],
        "broken": broken,
    }
    bars = [Bar("of near", times("near", "plain")), Bar("of far", times("far", "plain"), at_most=1)]
    case = Case("a case", contenders, bars, dict.fromkeys(("near", "far", "other", "nothing"), "plain"))
    measured, left_out = clock.measure(case, turns=7, device=CPU)
    assert {name: len(values) for name, values in measured.seconds.items()} == {"plain": 7, "near": 7}
    assert left_out["far"] == "its numbers are 1.0e-02 from those of plain, and 1e-03 is allowed"
    assert left_out["broken"] == "failed: RuntimeError: no kernel"
    assert left_out["other"].startswith("its numbers are inf") and left_out["nothing"].startswith("its numbers are inf")
    table = {row["what"]: row for row in rows(case, measured, left_out)}
    assert table["of far"] == {"case": "a case", "what": "of far", "bar": "<= 1", "left_out": "without far"}
    assert table["of near"]["low"] <= table["of near"]["measured"] <= table["of near"]["high"]
    assert "without far" in line(table["of far"]) and "ms [" in line(table["near"])


def test_every_other_turn_goes_backwards() -> None:
    order = []

    def contender(name: str) -> list[torch.Tensor]:
        order.append(name)
        return []

    clock.measure(Case("", {"a": lambda: contender("a"), "b": lambda: contender("b")}, []), turns=2, device=CPU)
    assert "".join(order) == "ab" + "baabbaab"  # the first two show their numbers


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own, where a layer is to be compiled
def test_the_decoders_compared_are_one_function() -> None:
    """The lab's, the one by hand, and transformers' with the same weights: the same loss."""
    small = {**decoders.TINY, "seq": 24, "batch": 2}
    case = decoders.dense("dense", small, d_ff=24, llama=1)
    found = {name: case.contenders[name]()[0].item() for name in ("by hand", "the lab's", "transformers")}
    assert found["the lab's"] == pytest.approx(found["by hand"], rel=1e-5)
    assert found["transformers"] == pytest.approx(found["by hand"], rel=1e-5)
    for config in (decoders.mixtral(small, d_ff=16), decoders.olmoe(small, d_ff=8)):
        case = decoders.routed("routed", small, config, at_least=1)
        found = {name: turn()[0].item() for name, turn in case.contenders.items()}
        assert found["the lab's"] == pytest.approx(found["transformers"], rel=1e-5)


def test_the_loop_over_experts_is_the_moe() -> None:
    case = moe.case(n_experts=4, top_k=2, d_ff=8, at_most=1, tokens=30, d_model=16)
    torch.testing.assert_close(case.contenders["the lab's"](), case.contenders["a loop"]())


def test_the_table_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases() -> Iterator[Case]:
        yield moe.case(n_experts=4, top_k=2, d_ff=8, at_most=1e9, tokens=30, d_model=16)

    monkeypatch.setattr(moe, "cases", cases)
    assert bench.main(["moe", "turns=6", f"to={tmp_path}"]) == 0
    record = json.loads((tmp_path / "moe.json").read_text())
    (decided,) = (row for row in record["rows"] if "holds" in row and row["bar"])
    assert decided["holds"] == "yes" and record["turns"] == 6 and record["env"]["torch"] == torch.__version__
    assert "<= 1e+09" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("subject", bench.SUITES["gpu"])
def test_what_is_for_a_gpu_runs_through_on_a_cpu(subject: str, tmp_path: Path) -> None:
    """At tiny sizes: numbers are those of the twins, and nothing is left out but for packages that are not installed."""
    assert bench.main([subject, "device=cpu", "turns=1", f"to={tmp_path}"]) == 0
    found = json.loads((tmp_path / f"{subject}.json").read_text())["rows"]
    left_out = [row["left_out"] for row in found if "left_out" in row]
    absent = ("failed: ModuleNotFoundError", "without transformers", "without Mamba-2 of fla", "without gated")
    assert [why for why in left_out if not why.startswith(absent)] == []
    assert sum("measured" in row or "ms" in row for row in found) >= 2


def test_an_error_of_one_turn_costs_the_contender_alone() -> None:
    calls = []

    def second_time() -> list[torch.Tensor]:
        calls.append(None)
        if len(calls) == 2:
            raise MemoryError("no room")
        return []

    contenders = {"whole": lambda: [], "broken": second_time, "unmade": lazily(lambda: 1 / 0)}
    measured, left_out = clock.measure(Case("", contenders, []), turns=3, device=CPU)
    assert left_out == {"broken": "failed: MemoryError: no room", "unmade": "failed: ZeroDivisionError: division by zero"}
    assert measured.seconds.keys() == {"whole"} and len(measured.seconds["whole"]) == 3 and len(calls) == 2


def test_a_case_that_cannot_be_made_is_told_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: torch.device) -> Iterator[Case]:
        yield Case("good", {"a": lambda: []}, [])
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_bank, "cases", broken)
    monkeypatch.setitem(bench.SUITES, "gpu", ("gpu_bank", "gpu_attention"))
    assert bench.main(["gpu", "device=cpu", "turns=1", f"to={tmp_path}"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    (why,) = (row["left_out"] for row in found if "left_out" in row)
    assert why == "failed: RuntimeError: no such kernel" and found[-1]["subject"] == "gpu_attention"
    assert why in capsys.readouterr().out


def test_after_the_device_is_lost_another_process_does_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise clock.DeviceLost("an illegal memory access was encountered")

    monkeypatch.setattr(bench, "measure", lost)
    with pytest.raises(SystemExit) as end:
        bench.main(["gpu_attention", "device=cpu", "turns=1", f"to={tmp_path}"])
    assert end.value.code == 0
    found = json.loads((tmp_path / "gpu_attention.json").read_text())["rows"]
    first, *others = found
    assert first["case"].startswith("sliding window") and "illegal memory access" in first["left_out"]
    assert others and all(row["case"].startswith("block-sparse") for row in others)


def test_every_part_of_a_suite_is_there_and_another_is_refused() -> None:
    assert {part for suite in bench.SUITES.values() for part in suite} <= set(bench.known())
    with pytest.raises(ValueError, match="fast: no such benchmark; there are cpu, gpu, analysis"):
        bench.main(["fast"])
    with pytest.raises(ValueError, match="turn"):
        bench.main(["moe", "turn=3"])
    with pytest.raises(ValueError, match="device=cuda: moe is measured on a CPU; on a GPU: gpu_decoders"):
        bench.main(["moe", "device=cuda"])

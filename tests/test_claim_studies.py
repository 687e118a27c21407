"""The studies of conf/study/claims: each is a question that its seeds can decide, about arms that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.verdict import seeds_needed
from runs.compose.arms import arms_and_seeds
from runs.compose.explain import CONF
from runs.data import MQAR
from runs.job.record import COSTS
from runs.job.study import Study

FILES = sorted((CONF / "study" / "claims").glob("*.yaml"))
DEFAULTS = yaml.safe_load((CONF / "config.yaml").read_text())["study"]
CHANCE = 1 / 32  # of the values that a query of claims/window may have


def content(file: Path) -> dict[str, Any]:
    """What a file says, over what the study says that it changes."""
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    first = found["defaults"][0]
    if isinstance(first, str):
        found["study"] = content(file.parent.parent / f"{first}.yaml")["study"] | found["study"]
    return found


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "pretrained"], ids=lambda file: file.stem)
def test_a_claim_is_a_question_that_its_seeds_can_decide(file: Path) -> None:
    said = DEFAULTS | content(file)["study"]
    arms, seeds = arms_and_seeds(said)
    study = Study.of({key: value for key, value in said.items() if key not in ("arms", "seeds", "again")})
    assert arms is not None and seeds is not None and study.question is not None and said["again"] is not None
    noisy = [asked for asked in study.question if asked.metric not in COSTS]
    assert len(seeds) >= max(6, seeds_needed(len(noisy))), f"{len(noisy)} claims about what has noise"
    assert study.name.startswith("claim-") and all(isinstance(arm, str) for arm in arms)


def test_studies_have_names_of_their_own() -> None:
    names = [content(file)["study"]["name"] for file in FILES]
    assert len(set(names)) == len(names) and len(names) > 20


def test_what_a_window_can_recall_is_what_its_study_predicts() -> None:
    study = content(CONF / "study" / "claims" / "window.yaml")
    train, predicted = study["train"], study["study"]["question"]["predicted"]
    data = MQAR(vocab_size=study["data"]["vocab_size"], pairs=study["data"]["pairs"])
    distances = []
    for batch in data.evaluation(n_batches=16, batch_size=train["batch_size"], seq_len=train["seq_len"]):
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            value = {tokens[2 * pair]: 2 * pair + 1 for pair in range(data.pairs)}
            distances += [place - value[tokens[place]] for place, target in enumerate(targets) if target != -100]
    for window in (12, 16, 24):
        within = sum(distance < window for distance in distances) / len(distances)
        assert within + (1 - within) * CHANCE == pytest.approx(predicted[f"window {window}"]["val_accuracy"], abs=0.01)

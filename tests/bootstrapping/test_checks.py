"""Each reason code: a report that it lets pass, and one that it stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsco.bootstrapping.checks import BETWEEN, CHECKS, Known, judge
from gsco.bootstrapping.page import REASONS
from gsco.bootstrapping.selection import agree, select
from gsco.bootstrapping.vocabulary import vocabulary_of
from gsco.cases.reports import Report, parse_report

WORDS = vocabulary_of(["Effusion", "Pneumonia", "Cardiomegaly", "No Finding"])
EFFUSION = Known(("Effusion",), {"Effusion": "left"})
NORMAL = Known(("No Finding",))
GOOD = Report("There is a small left pleural effusion. The heart is normal.", "Small left pleural effusion.")
CLEAR = Report("The lungs are clear. The heart is normal in size.", "No acute cardiopulmonary abnormality.")

# reason code: (known, report that passes, report that does not)
EXAMPLES: dict[str, tuple[Known, Report, Report]] = {
    "parts_missing": (EFFUSION, GOOD, Report(GOOD.findings, "")),
    "length": (EFFUSION, GOOD, Report("Left effusion.", "Effusion.")),
    "truncated": (EFFUSION, GOOD, Report(GOOD.findings, "Small left pleural effusion with")),
    "repetition": (EFFUSION, GOOD, Report(" ".join(["There is a left effusion."] * 4), GOOD.impression)),
    "placeholder": (EFFUSION, GOOD, Report(GOOD.findings, "Small left pleural effusion in [Name].")),
    "invented_fact": (EFFUSION, GOOD, Report("A 67-year-old man with left effusion.", GOOD.impression)),
    "label_missing": (EFFUSION, GOOD, Report(GOOD.findings, "Nothing acute in the left lung.")),
    "label_denied": (EFFUSION, GOOD, Report("There is no effusion. The heart is normal.", GOOD.impression)),
    "contradiction": (EFFUSION, GOOD, Report(GOOD.findings, "Small left pleural effusion and pneumonia.")),
    "side_conflict": (EFFUSION, GOOD, Report(GOOD.findings, "Small right pleural effusion.")),
}


def codes(report: Report, known: Known) -> set[str]:
    return {finding.code for finding in judge(report, known, WORDS)}


def test_every_code_has_an_example_and_a_name() -> None:
    assert set(EXAMPLES) == set(CHECKS)
    assert set(REASONS) == {*CHECKS, *BETWEEN}


@pytest.mark.parametrize("code", CHECKS)
def test_a_check_stops_its_report_and_no_other(code: str) -> None:
    known, passes, stopped = EXAMPLES[code]
    assert codes(passes, known) == set()
    assert code in codes(stopped, known)
    if code != "parts_missing":
        assert code not in {finding.code for finding in judge(stopped, known, WORDS, without=(code,))}


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("age", "Patient aged 54 years."),
        ("sex", "An adult woman."),
        ("name", "Discussed with Dr. Miller."),
        ("date", "Examination of 03/12/2011."),
        ("prior", "Compared to the prior study, it has grown."),
        ("measurement", "It measures 3.2 cm."),
        ("history", "There is a history of smoking."),
    ],
)
def test_a_fact_that_was_told_may_be_said(fact: str, text: str) -> None:
    report = Report(f"{GOOD.findings} {text}", GOOD.impression)
    assert codes(report, EFFUSION) == {"invented_fact"}
    assert codes(report, Known(EFFUSION.labels, EFFUSION.positions, frozenset({fact}))) == set()


def test_what_is_present_with_something_is_no_history() -> None:
    for said, expected in (
        ("A mass is present with indistinct margins.", set()),
        ("Presents with fever.", {"invented_fact"}),
        ("Clinically present with cough.", {"invented_fact"}),
    ):
        assert codes(Report(f"{GOOD.findings} {said}", GOOD.impression), EFFUSION) == expected


def test_the_known_side_counts_where_both_parts_err() -> None:
    report = Report(GOOD.findings.replace("left", "right"), GOOD.impression.replace("left", "right"))
    assert codes(report, EFFUSION) == {"side_conflict"}
    assert codes(report, Known(("Effusion",))) == set()


def test_normal_reports() -> None:
    assert codes(CLEAR, NORMAL) == set()
    assert "label_missing" in codes(Report(CLEAR.findings, "Acute cardiopulmonary abnormality."), NORMAL)
    assert "contradiction" in codes(
        Report(f"{CLEAR.findings} There is a pneumonia.", CLEAR.impression), NORMAL
    )
    assert "label_missing" in codes(CLEAR, EFFUSION)
    assert "label_denied" in codes(Report(GOOD.findings, "Normal chest. Left effusion."), EFFUSION)


def test_an_impression_that_only_denies_is_a_normal_one() -> None:
    for said in ("No focal infiltrate.", "No evidence of thoracic injury. No effusion."):
        assert codes(Report(CLEAR.findings, said), NORMAL) == set()
    enlarged = Report("The heart is enlarged.", "No focal infiltrate.")
    assert {"label_missing", "contradiction"} <= codes(enlarged, NORMAL)


def test_a_large_silhouette_names_a_large_heart_and_is_not_one() -> None:
    said = Report(
        "The cardiac silhouette is enlarged. Left effusion.", "Enlarged cardiac silhouette. Left effusion."
    )
    assert codes(said, Known(("Cardiomegaly", "Effusion"))) == codes(said, EFFUSION) == set()


def test_an_examination_that_is_wished_for_is_not_invented() -> None:
    wished = " Comparison with prior studies could confirm this. If there are no previous films, CT may help."
    assert codes(Report(GOOD.findings, GOOD.impression + wished), EFFUSION) == set()
    assert "invented_fact" in codes(
        Report(GOOD.findings + " Compared to the prior exam, better.", GOOD.impression), EFFUSION
    )


def test_a_normal_chest_has_nothing_else_either() -> None:
    """What is no option of the task contradicts "no finding" all the same, and goes with any other label."""
    words = vocabulary_of(["Pneumonia", "No Finding"])
    said = Report("There is a large pneumothorax. The heart is normal.", "No acute disease.")
    assert [f.code for f in judge(said, NORMAL, words)] == ["contradiction"]
    both = Report("Pneumonia with a small effusion on the left side.", "Left pneumonia.")
    assert judge(both, Known(("Pneumonia",)), words) == ()
    assert vocabulary_of(["benign", "normal"]).beyond == ()


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        ("An oval mass is present.", None),
        ("No mass is seen.", "label_denied"),
        ("There is no focal lesion.", "label_denied"),
        ("The tissue is regular, without a mass.", "label_denied"),
        ("An oval mass is present. No second mass is seen.", None),
        ("An oval mass is present, without shadowing.", None),
    ],
)
def test_what_is_benign_or_malignant_is_there(findings: str, reason: str | None) -> None:
    words = vocabulary_of(["benign", "malignant", "normal"])
    for label in ("benign", "malignant"):
        report = Report(findings, f"{label.title()} mass.")
        assert {f.code for f in judge(report, Known((label,)), words)} == ({reason} if reason else set())
    assert not judge(Report("No mass is seen in the breast.", "Normal."), Known(("normal",)), words)


def test_options_of_another_field() -> None:
    words = vocabulary_of(["benign", "malignant", "normal"])
    text = "Findings: An oval, well-defined mass with smooth margins.\nImpression: {}"
    for answer, label in (("Benign lesion.", "benign"), ("Suspicious for malignancy.", "malignant")):
        assert judge(parse_report(text.format(answer)), Known((label,)), words) == ()
    assert judge(parse_report(text.format("Malignant lesion.")), Known(("benign",)), words)


def test_without_a_label_nothing_is_judged() -> None:
    with pytest.raises(ValueError, match="without a label"):
        judge(GOOD, Known(()), WORDS)


@given(st.text(), st.text())
def test_any_report_is_judged(findings: str, impression: str) -> None:
    assert all(f.code in CHECKS and f.detail for f in judge(Report(findings, impression), EFFUSION, WORDS))


def draft(case_id: str, generator: str, report: Report, number: int = 0) -> dict[str, str]:
    return {"case_id": case_id, "generator": generator, "draft": f"{generator}.{number}", "raw": report.text}


def test_a_near_duplicate_of_another_image_is_rejected_and_of_its_own_is_not() -> None:
    known = {name: Known(("Effusion",)) for name in "ab"}
    verdicts = select(
        [draft("a", "g", GOOD), draft("a", "g", GOOD, 1), draft("b", "g", GOOD)], known, WORDS, keep=2
    )
    assert [v.outcome for v in verdicts] == ["accepted", "accepted", "rejected"]
    assert verdicts[2].reasons[0].code == "duplicate"


def test_agreement_is_between_generators() -> None:
    other = Report("A left effusion is seen at the base. No pneumonia.", "Left effusion.")
    opposed = Report("A right effusion is seen at the base. No pneumonia.", "Right effusion.")
    known = {"a": Known(("Effusion",))}
    assert agree(GOOD, other, WORDS)
    assert not agree(GOOD, opposed, WORDS)
    same = select([draft("a", "g", GOOD), draft("a", "h", other)], known, WORDS, agreement=2)
    assert [v.outcome for v in same] == ["accepted", "spare"]
    torn = select([draft("a", "g", GOOD), draft("a", "h", opposed)], known, WORDS, agreement=2)
    assert {v.reasons[0].code for v in torn} == {"no_agreement"}

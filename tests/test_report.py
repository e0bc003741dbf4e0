"""The page holds what the run's files say, escapes all of it, and opens well in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import report_fixture
import yaml
from chromium import EXECUTABLE, Chromium

from peftkit.errors import ArtefactError
from peftkit.report import MAX_SAMPLES, render_page, view, write_report
from peftkit.rundir.paths import RunDir

VOID = {"meta", "link", "wbr"}


class Page(HTMLParser):
    """Collect a page's tags, attributes and text, and complain of tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


def test_the_page_shows_scores_facts_and_the_way_back(tmp_path: Path) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    file = write_report(run_dir)
    assert file == run_dir.report
    page = Page(file.read_text())
    text = " ".join(page.text.split())
    for shown in (
        "summarize-lora", "finished", "0.093→0.312", "3.3 times higher", "0.287 to 0.338",
        "200 rows of the split test", "lora, r 16, lora_alpha 32", "425,984 of 7,250,000",
        "83.4 s", "peak resident memory 1.22 GiB", "First sentence",
        "method.sft.bf16", "no accelerator was found here", "9f2c" * 16, "torch", "2.13.0",
        "train row 0:", "train row 2:", "peftkit run run/recipe.yaml",
    ):  # fmt: skip
        assert shown in text, shown


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("sft", "Mean cross-entropy of the trained tokens, by optimizer step."),
        ("reward", "Mean negative log-likelihood that better answers win, by optimizer step."),
        ("of_a_plugin_not_here", "Mean loss, by optimizer step."),
    ],
)
def test_the_curve_says_what_the_method_s_loss_is(tmp_path: Path, method: str, said: str) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    resolved = yaml.safe_load(run_dir.resolved.read_text())
    run_dir.resolved.write_text(yaml.safe_dump({**resolved, "method": {method: {}}}))
    assert said in render_page(run_dir)


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = render_page(report_fixture.make_run(tmp_path / "run", hostile=True))
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "base", "form", "img"} & {
        tag for tag, _ in page.tags
    }
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")


def test_markup_in_data_stays_text(tmp_path: Path) -> None:
    text = render_page(report_fixture.make_run(tmp_path / "run", hostile=True))
    assert report_fixture.HOSTILE not in text
    assert html.escape(report_fixture.HOSTILE, quote=False).split("&quot;")[0][:20] in text
    # Name, reasons, dropped rows, samples and tokens all carry it.
    assert Page(text).text.count(report_fixture.HOSTILE) > 20


def test_a_stopped_run_says_how_far_it_came(tmp_path: Path) -> None:
    text = " ".join(Page(render_page(report_fixture.make_stopped_run(tmp_path / "r"))).text.split())
    assert "This run was stopped at step 120 of 240. The same command resumes it." in text
    assert "This run has no scores yet; they come when it has finished." in text
    assert "Samples" not in text


@pytest.mark.parametrize(
    "name", ["status.json", "versions.json", "data.json", "metrics.jsonl", "resolved.yaml"]
)
def test_a_missing_file_leaves_its_part_out(tmp_path: Path, name: str) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    (run_dir.path / name).unlink()
    Page(render_page(run_dir))


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    run_dir = report_fixture.make_stopped_run(tmp_path / "run")
    before = view(run_dir)["curve"]
    with run_dir.metrics.open("a") as stream:
        stream.write('{"step": 9999, "lo')
    assert view(run_dir)["curve"] == before


def test_broken_files_and_strangers_are_named(tmp_path: Path) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    run_dir.scores.write_text("{")
    with pytest.raises(ArtefactError, match=r"scores\.json cannot be read as JSON"):
        render_page(run_dir)
    run_dir.scores.unlink()
    run_dir.resolved.write_text("a: [")
    with pytest.raises(ArtefactError, match=r"resolved\.yaml is no recipe"):
        render_page(run_dir)
    with pytest.raises(ArtefactError, match="is not a run directory"):
        write_report(RunDir(tmp_path))
    assert not (tmp_path / "report.html").exists()


def test_samples_are_spread_from_best_to_worst(tmp_path: Path) -> None:
    shown = view(report_fixture.make_run(tmp_path / "run"))["samples"]
    after = [float(sample.score.split()[-1]) for sample in shown]
    assert len(shown) == MAX_SAMPLES
    assert after == sorted(after, reverse=True)
    assert (after[0], after[-1]) == (0.98, 0.0)
    assert {round(a - b, 2) for a, b in pairwise(after)} <= {0.12, 0.14, 0.16}
    # The instruction that all prompts share names no row.
    assert not any(sample.title.startswith("Summarise") for sample in shown)
    assert all(len(sample.title) <= 90 for sample in shown)


def test_every_evaluation_of_the_run_is_on_its_page(tmp_path: Path) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    scores = json.loads(run_dir.scores.read_text())
    other = {**scores, "split": "validation", "num_rows": 1050}
    (run_dir.path / "scores-validation.json").write_text(json.dumps(other))
    text = " ".join(Page(render_page(run_dir)).text.split())
    assert "200 rows of the split test" in text
    assert "Also scored: 1,050 rows of the split validation" in text
    run_dir.scores.unlink()
    assert "Also scored: 1,050 rows" in " ".join(Page(render_page(run_dir)).text.split())


def test_a_long_untrained_stretch_is_shortened_and_no_trained_token_is(tmp_path: Path) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    data = json.loads(run_dir.data.read_text())
    tokens = [f"w{i} " for i in range(700)]
    trained = [i >= 650 for i in range(700)]
    data["mask_samples"] = {"train": [{"tokens": tokens, "trained": trained}]}
    run_dir.data.write_text(json.dumps(data))
    ((split, row, what, pieces),) = view(run_dir)["masks"]
    assert (split, row, what) == ("train", 0, "50 of 700 tokens trained")
    assert [piece.text for piece in pieces if piece.is_trained] == tokens[650:]
    omitted = sum(piece.num_omitted for piece in pieces)
    assert omitted + sum(not piece.num_omitted for piece in pieces) == 700
    assert omitted == 650 - 120


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    if EXECUTABLE is None:
        pytest.skip("Debian's chromium is not installed")
    with Chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.chromium
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("hostile", [False, True])
def test_a_browser_shows_it_without_overflow_requests_or_complaints(
    browser: Chromium, tmp_path: Path, width: int, scheme: str, hostile: bool
) -> None:
    file = write_report(report_fixture.make_run(tmp_path / "run", hostile=hostile))
    shot = tmp_path / "page.png"
    questions = {
        "marks": "document.querySelectorAll('.tokens mark').length",
        "drawn": "document.querySelector('polyline.train').getBoundingClientRect().width",
        # WCAG's contrast of the body's text
        "contrast": "(() => {"
        "const light = (c) => c.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)"
        ".map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)"
        ".reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);"
        "const s = getComputedStyle(document.body);"
        "const [a, b] = [light(s.color), light(s.backgroundColor)].sort((x, y) => y - x);"
        "return (a + 0.05) / (b + 0.05); })()",
    }
    page = browser.load(file, width=width, scheme=scheme, screenshot=shot, evaluate=questions)
    assert page.overflow == 0
    assert page.requests == []
    assert page.console == []
    assert page.values["marks"] == 21
    assert page.values["drawn"] > width / 2
    assert page.values["contrast"] > 7
    red, green, blue = map(int, re.findall(r"\d+", page.background)[:3])
    assert (red + green + blue > 380) == (scheme == "light")
    assert shot.stat().st_size > 20_000

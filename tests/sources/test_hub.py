"""The Hub's refusals are explained at once, and a folder laid out like a dataset is one."""

from __future__ import annotations

import time

import pytest

from peftkit.errors import DataError, NetworkError, PeftkitError
from peftkit.sources.hub import HubConfig, HubSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    (path / "train.jsonl").write_text('{"a": "x", "b": 1}\n{"a": "y", "b": 2}\n')
    (path / "test.jsonl").write_text('{"a": "z", "b": 3}\n')
    return path


def answer(monkeypatch, kind: str, status: int):
    """Let the Hub answer every question about a dataset with an error."""
    from huggingface_hub import HfApi, errors

    request = errors.Response.__init__.__globals__["Request"]("GET", "https://huggingface.co/x")
    response = errors.Response(status, request=request)

    def refuse(self, path, **options):
        raise getattr(errors, kind)("no", response=response)

    monkeypatch.setattr(HfApi, "dataset_info", refuse)


def refusal(config: HubConfig) -> PeftkitError:
    with pytest.raises(PeftkitError) as caught:
        HubSource(config).load("train")
    return caught.value


def test_a_folder_is_a_dataset_with_its_splits(folder):
    source = HubSource(HubConfig(str(folder)))
    assert source.splits() == ["train", "test"]
    assert source.load("train").to_list() == [{"a": "x", "b": 1}, {"a": "y", "b": 2}]
    assert source.revision is None
    picked = HubSource(HubConfig(str(folder), columns=["b"], data_files={"train": "test.jsonl"}))
    assert picked.load("train").to_list() == [{"b": 3}]


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        (
            {},
            "dev",
            "{folder} has no split 'dev'; it has train, test\n"
            "  try: say data.splits: {{dev: NAME}}, or a percentage of train",
        ),
        (
            {"columns": ["c"]},
            "train",
            "{folder} (train) has no column 'c'; it has a, b\n  try: name the columns in data.task",
        ),
        (
            {"name": "x"},
            "train",
            "{folder}: BuilderConfig 'x' not found. Available: ['default']\n"
            "  try: pick a configuration with `name:`",
        ),
    ],
)
def test_what_a_folder_lacks_is_named(folder, options, split, message):
    with pytest.raises(DataError) as caught:
        HubSource(HubConfig(str(folder), **options)).load(split)
    assert str(caught.value) == message.format(folder=folder)


def test_a_broken_file_is_a_data_error(folder):
    (folder / "test.jsonl").write_text('{"a": "z"\n')
    error = refusal(HubConfig(str(folder)))
    assert error.exit_code == 3
    assert error.message.startswith(f"{folder}: JSON parse error")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "json",
            "hub.path 'json' is a file format, not a dataset\n  try: source: {json: {files: FILE}}",
        ),
        ("./gone", "hub.path './gone': no such folder"),
        (
            "a/b/c",
            "hub.path 'a/b/c' is neither a folder here nor a Hub id (`owner/name`)\n"
            "  try: check the path",
        ),
        (
            "rows.jsonl",
            "hub.path 'rows.jsonl' is a file\n"
            "  try: read it with the source `json`, `csv`, `parquet` or `text`",
        ),
    ],
)
def test_a_path_that_is_no_dataset_says_what_it_is(tmp_path, path, message):
    (tmp_path / "rows.jsonl").write_text("{}")
    error = refusal(HubConfig(path))
    assert isinstance(error, DataError)
    assert str(error) == message


@pytest.mark.parametrize(
    ("kind", "status", "message", "hint"),
    [
        (
            "GatedRepoError",
            401,
            "the Hub's dataset 'some/one' is gated, and no valid token was sent (401)",
            "accept the licence at https://huggingface.co/datasets/some/one, then: hf auth login",
        ),
        (
            "GatedRepoError",
            403,
            "the Hub's dataset 'some/one' is gated, and this account has no access (403)",
            "accept the licence at https://huggingface.co/datasets/some/one with the account of"
            " this token, then run again",
        ),
        (
            "RepositoryNotFoundError",
            404,
            "the Hub has no dataset 'some/one' that these credentials may see",
            "check the spelling at https://huggingface.co/datasets/some/one;"
            " if it is private: hf auth login",
        ),
        (
            "RevisionNotFoundError",
            404,
            "the Hub's dataset 'some/one' has no such revision",
            "pick a branch, tag or commit listed at https://huggingface.co/datasets/some/one",
        ),
    ],
)
def test_the_hubs_refusals_say_the_way_out(monkeypatch, kind, status, message, hint):
    answer(monkeypatch, kind, status)
    error = refusal(HubConfig("some/one"))
    assert isinstance(error, NetworkError)
    assert error.exit_code == 7
    assert (error.message, error.hint) == (message, hint)


def test_no_network_is_said_at_once():
    start = time.perf_counter()
    error = refusal(HubConfig("some/one", revision="v1"))
    assert time.perf_counter() - start < 10
    assert isinstance(error, NetworkError)
    assert error.message.startswith(
        "dataset 'some/one' is not in the Hub cache, and the Hub cannot be reached"
    )
    assert error.hint == (
        "check the network; or download it elsewhere with"
        " `hf download some/one --repo-type dataset` and name the folder"
    )


def test_a_card_in_the_cache_names_the_commit_without_network(tmp_path):
    snapshot = tmp_path / "hub" / "datasets--some--one" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("card")
    refs = tmp_path / "hub" / "datasets--some--one" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    assert HubSource(HubConfig("some/one"))._find_commit() == COMMIT

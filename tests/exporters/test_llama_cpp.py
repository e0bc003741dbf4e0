"""What llama.cpp itself makes of the files: tokens, chats, logits, answers and where they end.

Needs Node and its `node-llama-cpp`, which brings llama.cpp built: `npm install --no-save
node-llama-cpp` in the repository's folder, then `pytest -m llama_cpp`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import chat_templates
import numpy as np
import pytest
import tiny
import tiny_families
import tiny_tokenizers
import training_fixture
from command_line import run_command
from trained_adapter import lora, move_and_save

from peftkit.exporters.gguf_adapter import GgufAdapter, GgufAdapterOptions
from peftkit.exporters.gguf_file import write_gguf
from peftkit.generate import open_answerer
from peftkit.models.logit_parity import SENTENCES
from peftkit.plugins.exported import Trained
from peftkit.scoring.prompts import question_of_text

pytest.importorskip("gguf", reason="the gguf extra is not installed")
HERE = Path(__file__).parent
NODE = shutil.which("node")
MODULE = HERE.parent.parent / "node_modules/node-llama-cpp"
pytestmark = [
    pytest.mark.llama_cpp,
    pytest.mark.skipif(NODE is None, reason="Node is not installed"),
    pytest.mark.skipif(not MODULE.exists(), reason="npm's node-llama-cpp is not installed here"),
]
OUTTYPES = {"f32": 0.005, "f16": 0.01, "bf16": 0.15, "q8_0": 0.4}
"""Type -> how far any logit may be off, in standard deviations of the logits. Gemma and GPT-2 look
their activation up in a table of float16; Q8_0 also rounds what the weights are multiplied with."""
CHATS = [
    [{"role": "user", "content": "return the sum"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  read a file\n"}],
    [
        {"role": "user", "content": "sort keys"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nby name"},
        {"role": "user", "content": "It's naïve, 東京 🙂 {{ x }}"},
    ],
]
TEXTS = [
    *SENTENCES, "", " ", "a  b\n\n\nc\t d", "It'S DON'T we'll", "x=1234567;", "\u00e9 e\u0301 🏳️‍🌈",
    "    return 1\n", "<|endoftext|> within", "الرقم ١٢٣ और हिन्दी", "HTTPServer camelCase 3.14e-5",
]  # fmt: skip


def ask(requests: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Have llama.cpp read files; return what it says of each."""
    asked, answered = folder / "asked.json", folder / "answered.json"
    usual = {"texts": [], "chats": [], "ids": [5, 6, 7], "num_tokens": 0}
    asked.write_text(json.dumps([usual | one for one in requests]), encoding="utf-8")
    command = [str(NODE), str(HERE / "llama_cpp.mjs"), str(asked), str(answered)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(answered.read_text(encoding="utf-8"))


def export(folder: Path, outtype: str) -> Path:
    """Write a folder's model as GGUF."""
    out = folder.parent / f"{folder.name}-{outtype}"
    out.mkdir()
    return write_gguf(Trained("tiny", folder), out, outtype).files[0]


def test_every_family_and_type_computes_and_answers_as_the_model_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    requests, wanted, num_compared = [], [], 0
    for name in tiny_families.FAMILIES:
        folder = tiny_families.save(name, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(CHATS[2], add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            answer = model.generate(**ids, max_new_tokens=12, do_sample=False)
            logits = model(input_ids=answer[:, :-1]).logits[0].double().numpy()
        prompt = ids["input_ids"][0].tolist()
        for outtype in OUTTYPES:
            file = export(folder, outtype)
            requests.append({"file": str(file), "texts": [text], "ids": prompt, "num_tokens": 12,
                             "chats": [CHATS[2]]})  # fmt: skip
            wanted.append((name, outtype, text, prompt, logits, answer[0, len(prompt) :].tolist()))
    for found, (name, outtype, text, prompt, logits, answer) in zip(
        ask(requests, tmp_path), wanted, strict=True
    ):
        where = f"{name} as {outtype}"
        assert found["rendered"] == [text], where
        assert found["tokens"] == [prompt], where
        bound = OUTTYPES[outtype] * logits.std()
        off = np.abs(np.array(found["logits"]) - logits[: len(prompt)]).max()
        assert off < bound, (where, off)
        best = np.sort(logits[len(prompt) - 1 :], axis=1)
        is_close = best[:, -1] - best[:, -2] < 2 * bound  # where rounding may choose another one
        num_sure = int(is_close.argmax()) if is_close.any() else len(answer)
        assert found["greedy"][:num_sure] == answer[:num_sure], where
        num_compared += num_sure
    assert num_compared > 150


def test_an_adapter_on_the_bases_file_computes_as_the_tuned_model(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    requests, wanted = [], []
    for name in tiny_families.FAMILIES:
        base = tiny_families.save(name, tmp_path / name)
        targets = ["c_attn", "c_proj", "c_fc"] if name == "gpt2" else "all-linear"
        config = lora(target_modules=targets, lora_alpha=24, fan_in_fan_out=name == "gpt2")
        trained = move_and_save(base, tmp_path / f"{name}-lora", config)
        (out := tmp_path / f"{name}-out").mkdir()
        adapter = GgufAdapter(GgufAdapterOptions()).export(trained, out).files[0]
        plain = AutoModelForCausalLM.from_pretrained(base)
        ids = [5, 60, 7, 90, 33]
        with torch.no_grad():
            untuned = plain(input_ids=torch.tensor([ids])).logits[0].double().numpy()
            tuned = PeftModel.from_pretrained(plain, trained.folder).eval()
            logits = tuned(input_ids=torch.tensor([ids])).logits[0].double().numpy()
        requests.append({"file": str(export(base, "f32")), "lora": str(adapter), "ids": ids})
        wanted.append((name, untuned, logits))
    for found, (name, untuned, logits) in zip(ask(requests, tmp_path), wanted, strict=True):
        off = np.abs(np.array(found["logits"]) - logits).max()
        assert off < OUTTYPES["f32"] * logits.std(), (name, off)
        assert np.abs(untuned - logits).max() > 20 * off, "the adapter changes something"


def test_every_tokenizer_cuts_texts_alike(tmp_path: Path) -> None:
    byte_level = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken")
    requests, wanted = [], []
    for kind in (*byte_level, "llama", "gemma"):
        folder = tiny_families.save("llama", tmp_path / kind)
        tokenizer = (
            tiny_tokenizers.byte_level(kind, folder)
            if kind in byte_level
            else tiny_tokenizers.sentencepiece(folder, style=kind)
        )
        texts = [text for text in TEXTS if text]
        if kind == "qwen2":  # its tokenizer composes what llama.cpp takes as it is; a note says so
            texts = [text for text in texts if "e\u0301" not in text]
        requests.append({"file": str(export(folder, "f32")), "texts": texts})
        wanted.append((kind, texts, tokenizer))
    for found, (kind, texts, tokenizer) in zip(ask(requests, tmp_path), wanted, strict=True):
        for text, tokens in zip(texts, found["tokens"], strict=True):
            assert tokens == tokenizer(text, add_special_tokens=False).input_ids, (kind, text)


def test_templates_are_rendered_alike(tmp_path: Path) -> None:
    templates = chat_templates.TRANSLATABLE | {
        name: template
        for name, (template, _) in chat_templates.REFUSED.items()
        # llama.cpp has no filter `e`, and its `upper` knows ASCII alone
        if name not in ("dates", "refuses users", "escapes", "shouts")
    }
    requests, wanted = [], []
    for number, (name, template) in enumerate(templates.items()):
        folder = tiny_families.save("llama", tmp_path / str(number))
        tokenizer = tiny.tiny_tokenizer(folder, chat_template=template)
        chats = [chat for chat in CHATS if name != "no system" or chat[0]["role"] != "system"]
        requests.append({"file": str(export(folder, "f32")), "chats": chats})
        wanted.append([name, *(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats
        )])  # fmt: skip
    answers = ask(requests, tmp_path)
    assert [
        [name, *found["rendered"]] for found, (name, *_) in zip(answers, wanted, strict=True)
    ] == wanted


def test_an_encoder_embeds_alike(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_families.save_bert(tmp_path / "bert")
    texts = [SENTENCES[0], SENTENCES[1]]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(texts[0], return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**ids).last_hidden_state[0]
    request = {"file": str(export(folder, "f32")), "texts": texts, "embeds": True,
               "ids": ids["input_ids"][0].tolist()}  # fmt: skip
    found = ask([request], tmp_path)[0]
    assert found["tokens"] == [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
    embedding = np.array(found["embedding"])
    cosines = [
        float(embedding @ state / np.linalg.norm(embedding) / np.linalg.norm(state))
        for state in states.double().numpy()
    ]
    # the file says nothing of pooling, so that the reader takes the last token's state
    assert cosines[-1] > 1 - 1e-6, cosines


def test_a_run_answers_and_ends_as_peftkit_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the shell: a run that learned short answers, exported in every type, asked again."""
    base = tiny.tiny_llama(tmp_path / "base", chat_template=chat_templates.CHATML)
    rows = [{"document": f"{n} read a file", "summary": "sort keys"} for n in range(16)]
    recipe = training_fixture.write_recipe(
        tmp_path / "recipe.json", base, tiny.write_jsonl(tmp_path / "rows.jsonl", rows),
        sft={"learning_rate": 3e-2, "max_steps": 40, "max_length": 128},
    )  # fmt: skip
    run = training_fixture.train(recipe, tmp_path / "run").path
    said = run_command(capfd, "generate", run, "7 read a file").out.strip()
    requests = []
    for outtype in OUTTYPES:
        out = tmp_path / outtype
        done = run_command(capfd, "export", run, "--to", "gguf", "--out", out, f"outtype={outtype}")
        assert done.code == 0, done.err
        requests.append({"file": str(next(out.glob("*.gguf"))), "num_tokens": 40})
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    question = question_of_text(open_answerer(run).task, "7 read a file")
    ids = tokenizer.apply_chat_template(
        list(question.messages), add_generation_prompt=True, return_dict=False
    )
    answers = ask([one | {"ids": ids} for one in requests], tmp_path)
    for found, outtype in zip(answers, OUTTYPES, strict=True):
        text = tokenizer.decode(found["greedy"], skip_special_tokens=True).strip()
        assert text == said, outtype
        assert len(found["greedy"]) < 40, "it ran on"

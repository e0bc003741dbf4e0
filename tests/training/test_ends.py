"""Whatever is saved ends its answers where training taught to: with a token that is not the EOS."""

from __future__ import annotations

import json

import pytest
import tiny
from command_line import run_command
from dialogue_fixture import CHATML, Templates

from peftkit.training.ends import with_taught_end

RECIPE = """\
name: ends
model: {{path: {model}, dtype: float32}}
data:
  source: {{json: {{files: {rows}}}}}
  task: {{chat: {{messages: messages}}}}
adapter: {adapter}
method: {{sft: {{max_steps: 1, per_device_train_batch_size: 2, max_length: 64, report_to: none}}}}
"""
END, OTHER = "<|im_end|>", "<|endoftext|>"
LORA = "{lora: {r: 2, target_modules: [q_proj]}}"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Save a model that says `<|im_end|>` whatever it is asked, and knows another end token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    tokenizer = Templates(tmp_path_factory.mktemp("tokenizer"))(CHATML)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.mul_(1e-3)
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 1.0
    model.save_pretrained(folder)
    return folder


def num_written(model, tokenizer) -> int:
    """Count what plain `generate` writes, told nothing but where the model lies."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "sort"}], add_generation_prompt=True, return_tensors="pt"
    )
    made = model.generate(**asked, max_new_tokens=8, do_sample=False)
    return int(made.shape[1] - asked["input_ids"].shape[1])


@pytest.mark.parametrize("adapter", [LORA, "full"])
def test_plain_generate_of_every_artefact_ends_where_training_did(base, tmp_path, adapter, capfd):
    from gguf import GGUFReader
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    talk = [{"role": "user", "content": "sort"}, {"role": "assistant", "content": "keys"}]
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"messages": talk}] * 2)
    recipe = tmp_path / "ends.yaml"
    recipe.write_text(RECIPE.format(model=base, rows=rows, adapter=adapter))
    run = tmp_path / "run"
    assert run_command(capfd, "run", str(recipe), "--out", str(run)).code == 0
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert num_written(plain, AutoTokenizer.from_pretrained(base)) == 8
    if adapter == "full":
        folder = run / "model"
    else:
        plain.generation_config = GenerationConfig.from_pretrained(run / "adapter")
        tuned = PeftModel.from_pretrained(plain, run / "adapter")
        assert num_written(tuned, AutoTokenizer.from_pretrained(run / "adapter")) == 1
        folder = tmp_path / "merged"
        assert run_command(capfd, "merge", str(run), "--out", str(folder), "--no-verify").code == 0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == END
    assert num_written(AutoModelForCausalLM.from_pretrained(folder), tokenizer) == 1
    out = tmp_path / "ollama"
    assert run_command(capfd, "export", str(folder), "--to", "ollama", "--out", str(out)).code == 0
    stops = (out / "Modelfile").read_text()
    assert 'PARAMETER stop "<|im_end|>"' in stops
    assert 'PARAMETER stop "<|endoftext|>"' in stops
    reader = GGUFReader(out / "model.gguf")
    ends = [
        reader.get_field(f"tokenizer.ggml.{name}_token_id").contents() for name in ("eos", "eot")
    ]
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]


def test_a_template_that_names_its_end_token_keeps_it(tmp_path):
    named = CHATML + "{{ eos_token if not add_generation_prompt }}"
    tokenizer = Templates(tmp_path)(named)
    assert with_taught_end(tokenizer) is tokenizer
    plain = Templates(tmp_path)(CHATML)
    assert with_taught_end(plain).eos_token == END
    assert plain.eos_token == OTHER


def test_a_run_goes_on_with_the_day_on_which_it_began(base, tmp_path, capfd):
    template = tmp_path / "dated.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML)
    talk = [{"role": "user", "content": "sort"}, {"role": "assistant", "content": "keys"}]
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"messages": talk}] * 2)
    recipe = tmp_path / "ends.yaml"
    text = RECIPE.format(model=base, rows=rows, adapter=LORA)
    recipe.write_text(text.replace("dtype", f"chat_template: {template}, dtype"))
    run = str(tmp_path / "run")
    early = run_command(capfd, "run", str(recipe), "data.dialogue.date=2024-02-29", "--out", run)
    assert early.code == 0
    sample = json.loads((tmp_path / "run" / "data.json").read_text())["mask_samples"]["train"][0]
    assert "".join(sample["tokens"]).startswith("29 Feb 2024\n")
    again = run_command(capfd, "run", str(recipe), "--out", run)
    assert (again.code, "already finished" in again.out) == (0, True)
    other = tmp_path / "other"
    assert run_command(capfd, "run", str(recipe), "--out", str(other)).code == 0
    assert "date: '20" in (other / "resolved.yaml").read_text()

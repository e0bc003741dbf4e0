import pytest

from peftkit.errors import UsageError
from peftkit.plugins.examples import Question
from peftkit.scoring import generation

DOCUMENTS = (
    "sort keys by name",
    "",
    "read a file from disk into an array and write rows to a table " * 3,
    "compute the mean",
    "ünïcödé ∑ 数",
    "open a connection to a server and close it " * 5,
    "return the sum of two numbers and raise an error when a value is missing",
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    made = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    # Sharper than at random, so that an end comes now and then and float noise decides nothing
    torch.manual_seed(3)
    for weight in made.parameters():
        weight.data.mul_(3)
    return made


def ask(*documents):
    return [Question(messages=({"role": "user", "content": document},)) for document in documents]


def config_of(tokenizer, **options):
    return generation.generation_config(options, tokenizer, stop_ids=[tokenizer.eos_token_id])


def one_by_one(model, tokenizer, prompts, max_new_tokens):
    """Generate with plain transformers, row by row, without padding."""
    import torch

    texts = []
    for question in prompts:
        text = tokenizer.apply_chat_template(
            list(question.messages), add_generation_prompt=True, tokenize=False
        )
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_equals_plain_generate_row_by_row(model, tokenizer, batch_size):
    prompts = ask(*DOCUMENTS)
    encoded = generation.encode_prompts(prompts, tokenizer, max_tokens=None)
    config = config_of(tokenizer, max_new_tokens=24)
    found = generation.answer(model, tokenizer, encoded, config=config, batch_size=batch_size)
    assert list(found.texts) == one_by_one(model, tokenizer, prompts, 24)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "LoraConfig"])
def test_answers_do_not_depend_on_the_batch_with_an_adapter(tiny_model, tokenizer, kind):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    options = (
        {"target_modules": "all-linear", "init_lora_weights": False}
        if kind == "LoraConfig"
        else {"num_virtual_tokens": 4}
    )
    adapter = getattr(peft, kind)(task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter).eval()
    for weight in model.parameters():
        weight.data.mul_(3)
    encoded = generation.encode_prompts(ask(*DOCUMENTS), tokenizer, max_tokens=None)
    config = config_of(tokenizer, max_new_tokens=12)
    found = [
        generation.answer(model, tokenizer, encoded, config=config, batch_size=size).texts
        for size in (1, 4)
    ]
    assert found[0] == found[1]


def test_a_long_prompt_loses_the_end_of_its_last_message_only(tokenizer):
    prompts = ask("sort keys by name", "read a file from disk " * 50)
    encoded = generation.encode_prompts(prompts, tokenizer, max_tokens=40)
    short, long = (tokenizer.decode(ids) for ids in encoded.input_ids)
    assert (encoded.num_cut, encoded.max_tokens) == (1, 40)
    assert "sort keys by name" in short
    assert len(encoded.input_ids[1]) == 40
    assert long.startswith("<|user|>\nread a file from disk")
    assert long.endswith("<|endoftext|>\n<|assistant|>\n")


def test_room_is_positions_less_answer_less_soft_prompt(tiny_model, model, tokenizer):
    import peft
    from transformers import AutoModelForCausalLM

    config = config_of(tokenizer)
    assert config.max_new_tokens == 64
    assert generation.max_prompt_tokens(model, config) == 256 - 64
    soft = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    )
    assert generation.max_prompt_tokens(soft, config) == 256 - 64 - 5
    with pytest.raises(UsageError) as caught:
        generation.max_prompt_tokens(model, config_of(tokenizer, max_new_tokens=256))
    assert str(caught.value) == (
        "max_new_tokens is 256, but the model has 256 positions for prompt and answer together\n"
        "  try: max_new_tokens=64"
    )


def test_an_answer_that_reaches_the_limit_is_counted(model, tokenizer):
    encoded = generation.encode_prompts(ask(*DOCUMENTS), tokenizer, max_tokens=None)
    never = generation.generation_config({"max_new_tokens": 3}, tokenizer, stop_ids=[])
    found = generation.answer(model, tokenizer, encoded, config=never, batch_size=4)
    assert found.num_unfinished == len(DOCUMENTS)


def test_a_checkpoint_s_own_sampling_is_not_inherited(tiny_model, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    encoded = generation.encode_prompts(ask(*DOCUMENTS), tokenizer, max_tokens=None)
    config = config_of(tokenizer, max_new_tokens=8)
    plain = generation.answer(model, tokenizer, encoded, config=config, batch_size=4)
    own = model.generation_config
    own.do_sample, own.temperature, own.top_k, own.repetition_penalty = True, 5.0, 0, 3.0
    own.min_length = 10_000
    assert generation.answer(model, tokenizer, encoded, config=config, batch_size=4) == plain


def test_sampling_repeats_and_leaves_the_random_state_alone(model, tokenizer):
    import torch

    encoded = generation.encode_prompts(ask(*DOCUMENTS), tokenizer, max_tokens=None)
    config = config_of(tokenizer, max_new_tokens=8, do_sample=True, temperature=2.0)
    before = torch.get_rng_state()
    found = [
        generation.answer(model, tokenizer, encoded, config=config, batch_size=4) for _ in range(2)
    ]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_typo_names_the_key_that_was_meant(tokenizer):
    with pytest.raises(UsageError) as caught:
        config_of(tokenizer, max_new_token=3)
    assert str(caught.value) == (
        "generation: GenerationConfig has no key 'max_new_token'\n"
        "  try: did you mean max_new_tokens?"
    )
    with pytest.raises(UsageError, match="generation: "):
        config_of(tokenizer, max_new_tokens=-3)


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("num_return_sequences", "one answer"),
        ("return_dict_in_generate", "the text alone"),
        ("max_length", "max_new_tokens"),
    ],
)
def test_a_key_that_is_set_here_says_what_to_write_instead(tokenizer, key, instead):
    with pytest.raises(UsageError, match=f"(?s){key}: peftkit sets.*{instead}"):
        config_of(tokenizer, **{key: 8})


def test_stops_where_the_template_ends_a_turn(tiny_model, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    eos = tokenizer.eos_token_id
    assert generation.stop_token_ids(model, tokenizer) == (eos,)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|endoftext|>", "<|system|>")
    system = tokenizer.convert_tokens_to_ids("<|system|>")
    assert generation.stop_token_ids(model, tokenizer) == tuple(sorted((eos, system)))


def test_a_batch_that_does_not_fit_is_halved(model, tokenizer, monkeypatch):
    import torch

    real = generation._generate
    sizes = []

    def crowded(model, rows, config, **options):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(model, rows, config, **options)

    encoded = generation.encode_prompts(ask(*DOCUMENTS), tokenizer, max_tokens=None)
    config = config_of(tokenizer, max_new_tokens=4)
    plain = generation.answer(model, tokenizer, encoded, config=config, batch_size=8)
    monkeypatch.setattr(generation, "_generate", crowded)
    assert generation.answer(model, tokenizer, encoded, config=config, batch_size=8) == plain
    assert sizes == [7, 4, 2, 2, 2, 1]


def test_an_empty_conversation_still_has_a_prompt(tokenizer):
    assert generation.encode_prompt(Question(), tokenizer) == [tokenizer.eos_token_id]


def test_an_answer_stops_before_a_stop_string(tiny_model) -> None:
    """The same text, cut; at once or in batches, and no answer counts as unfinished."""
    from peftkit.models.base import load_base
    from peftkit.models.tokenizer import load_tokenizer
    from peftkit.plugins import CAUSAL_LM, Question
    from peftkit.recipe.schema import ModelSection

    section = ModelSection(path=str(tiny_model), dtype="float32")
    model, tokenizer = load_base(section, kind=CAUSAL_LM), load_tokenizer(section, tiny_model)
    asked = [Question(messages=({"role": "user", "content": text},)) for text in ("sum", "a file")]
    prompts = generation.encode_prompts(asked, tokenizer, max_tokens=64)
    stops = generation.stop_token_ids(model, tokenizer)

    def answers(**options):
        given = {"max_new_tokens": 24, **options}
        config = generation.generation_config(given, tokenizer, stop_ids=stops)
        return config, generation.answer(model, tokenizer, prompts, config=config, batch_size=2)

    _, whole = answers()
    stop = whole.texts[0].strip()[2:4]
    config, cut = answers(stop_strings=[stop])
    assert cut.texts[0] == whole.texts[0][: whole.texts[0].index(stop)]
    assert cut.num_unfinished <= whole.num_unfinished
    written: list[str] = []
    found = generation.stream_answer(
        model, tokenizer, prompts.input_ids[0], config=config, write=written.append
    )
    assert found == (cut.texts[0], True)
    assert "".join(written) == cut.texts[0]


def test_what_only_generation_refuses_is_told_of_its_option(model, tokenizer):
    with pytest.raises(UsageError, match=r"^generation: .*sequence_bias"):
        generation.check_answers(model, tokenizer, {"sequence_bias": {"a": 1}})


@pytest.mark.parametrize("options", [{"eos_token_id": 3}, {"bad_words_ids": []},
                                     {"stop_strings": []}, {"sequence_bias": {}}])  # fmt: skip
def test_options_that_ask_for_nothing_or_for_one_end_are_taken(model, tokenizer, options):
    import torch

    state = torch.get_rng_state()
    generation.check_answers(model, tokenizer, options)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training

"""The policy over whole episodes: probabilities, values, gradients, critics, references, precision and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents.lm import LMActorCritic, actor_critic

# peft asks transformers for a name that is about to go.
OLD_NAME = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
KINDS = ["gpt2", "llama", "qwen2", "neox"]


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_evaluation_is_zero_outside_the_text_and_blind_to_padding(
    kind: str, make_policy: Any, random_rows: Any
) -> None:
    policy = make_policy(kind)
    rows, lengths = random_rows(policy.spec, 12)
    first = policy.evaluate(rows, lengths)
    outside = torch.arange(policy.spec.max_new_tokens) >= lengths[:, None]
    for x in (first.logprobs, first.entropies, first.values):
        assert not x[outside].any()
        assert x[~outside].all()
    policy._padding_id = 12  # another embedding stands for padding
    policy._lm.get_input_embeddings().weight[12] += 3.0
    second = policy.evaluate(rows, lengths)
    for name in ("logprobs", "entropies", "values"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_values_of_the_states_and_of_the_one_behind_the_last_token(
    kind: str, make_policy: Any, random_rows: Any
) -> None:
    policy = make_policy(kind)
    spec = policy.spec
    rows, lengths = random_rows(spec, 8)
    lengths[0] = spec.max_new_tokens
    rows[0, spec.prompt_length :] = 3
    values, after = policy.values(rows, lengths)
    torch.testing.assert_close(values, policy.evaluate(rows, lengths).values, atol=1e-5, rtol=0)
    for row, length, value in zip(rows, lengths.tolist(), after, strict=True):
        ids = row[row != spec.pad_id][None]
        every = policy.value_head(policy._trunk(input_ids=ids).last_hidden_state)[0, :, 0]
        expected = torch.tensor(0.0) if length == spec.max_new_tokens else every[-1]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_passes_without_gradients_agree_however_they_are_cut(
    make_policy: Any, random_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    rows, lengths = random_rows(policy.spec, 30)
    expected = policy.evaluate(rows, lengths)
    for tokens in (1, 40, 10_000):
        monkeypatch.setattr(actor_critic, "TOKENS_AT_ONCE", tokens)
        torch.testing.assert_close(policy.logprobs(rows, lengths), expected.logprobs, atol=1e-5, rtol=0)
        torch.testing.assert_close(policy.values(rows, lengths)[0], expected.values, atol=1e-5, rtol=0)


@torch.no_grad()
def test_probabilities_are_of_the_tokens_alone_at_the_temperature(make_policy: Any, random_rows: Any) -> None:
    """What the model could write beyond the tokenizer's tokens is dropped; the temperature divides what is left."""
    policy = make_policy(temperature=0.7)
    spec = policy.spec
    rows, lengths = random_rows(spec, 6)
    evaluation = policy.evaluate(rows, lengths)
    for i in range(6):
        ids = rows[i][rows[i] != spec.pad_id][None]
        n = int(lengths[i])
        logits = policy.model(input_ids=ids).logits[0, -n - 1 : -1, : spec.pad_id] / 0.7
        distribution = torch.distributions.Categorical(logits=logits)
        torch.testing.assert_close(evaluation.logprobs[i, :n], distribution.log_prob(ids[0, -n:]), atol=1e-5, rtol=0)
        torch.testing.assert_close(evaluation.entropies[i, :n], distribution.entropy(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_masks_and_temperature_hold_in_playing_and_in_evaluation_alike(make_policy: Any) -> None:
    policy = make_policy(temperature=1.7)
    spec = policy.spec
    obs = np.full((64, spec.row_length), spec.pad_id)
    obs[:, : spec.prompt_length] = np.random.default_rng(0).integers(0, spec.pad_id, (64, spec.prompt_length))
    mask = np.zeros((64, spec.pad_id), dtype=np.int8)
    mask[:, [1, 3]] = 1
    actions, logprobs = policy.act(obs, mask)
    assert set(actions.tolist()) == {1, 3}
    rows = obs.copy()
    rows[:, spec.prompt_length] = actions
    masks = torch.ones(64, spec.max_new_tokens, spec.pad_id, dtype=torch.bool)
    masks[:, 0] = torch.from_numpy(mask) != 0
    ones = torch.ones(64, dtype=torch.long)
    evaluation = policy.evaluate(torch.from_numpy(rows), ones, masks)
    np.testing.assert_allclose(evaluation.logprobs[:, 0].numpy(), logprobs, atol=1e-5)
    assert evaluation.entropies[:, 0].max() <= np.log(2) + 1e-6
    logprobs_again = policy.logprobs(torch.from_numpy(rows), ones, masks)
    torch.testing.assert_close(logprobs_again, evaluation.logprobs, atol=1e-6, rtol=0)


def test_sampling_follows_the_distribution(make_policy: Any) -> None:
    policy = make_policy()
    spec = policy.spec
    obs = np.full((20_000, spec.row_length), spec.pad_id)
    obs[:, : spec.prompt_length] = 2
    actions, logprobs = policy.act(obs)
    with torch.no_grad():
        probabilities = policy.model(input_ids=torch.full((1, 4), 2)).logits[0, -1, : spec.pad_id].softmax(-1)
    shares = np.bincount(actions, minlength=spec.pad_id) / len(actions)
    np.testing.assert_allclose(shares, probabilities.numpy(), atol=0.012)
    np.testing.assert_allclose(logprobs, probabilities.log().numpy()[actions], atol=1e-5)
    assert (policy.predict(obs[:5]) == int(probabilities.argmax())).all()


def test_logits_in_pieces_give_the_same_gradients(
    make_policy: Any, random_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    rows, lengths = random_rows(policy.spec, 16)

    def gradients() -> dict[str, Tensor]:
        policy.zero_grad()
        new = policy.evaluate(rows, lengths)
        (new.logprobs.sum() + 0.3 * new.entropies.sum() + new.values.square().sum()).backward()
        return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}

    whole = gradients()
    monkeypatch.setattr(actor_critic, "LOGITS_AT_ONCE", 7 * policy.spec.num_tokens)
    pieces = gradients()
    assert whole.keys() == pieces.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, atol=1e-4, rtol=1e-4)


def test_the_logits_of_a_batch_never_exist_at_once(
    make_model: Any, make_spec: Any, random_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the elements of everything that the output layer computes, and of everything that is kept for the backward
    pass, for 48 texts of up to 16 tokens out of 5,000 words: [B, T, V] would be 3.8 million."""
    spec = make_spec(max_new_tokens=16, num_tokens=5_000)
    policy = LMActorCritic(make_model("gpt2", vocab_size=5_000))
    policy.bind(spec, seed=0)
    monkeypatch.setattr(actor_critic, "LOGITS_AT_ONCE", 200_000)
    rows, lengths = random_rows(spec, 48)
    sizes: list[int] = []
    usual = policy._logits
    monkeypatch.setattr(policy, "_logits", lambda hidden: sizes.append((x := usual(hidden)).numel()) or x)
    policy.logprobs(rows, lengths)
    assert len(sizes) > 5
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        if x.shape[-1:] == (5_000,):
            kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = policy.evaluate(rows, lengths).logprobs.sum()
    loss.backward()
    assert max(sizes) <= 200_000
    assert sum(kept) == 0  # pieces are computed again instead


# -- what is trained ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic", ["shared", "copy"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_every_trainable_parameter_has_a_gradient(kind: str, critic: str, make_policy: Any, random_rows: Any) -> None:
    policy = make_policy(kind, critic=critic)
    new = policy.evaluate(*random_rows(policy.spec, 24))
    (new.logprobs.sum() + new.values.square().sum()).backward()
    assert [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_is_off_in_playing_and_in_learning(make_policy: Any, make_model: Any, random_rows: Any) -> None:
    for kind in ("gpt2", "llama"):
        plain, dropping = make_policy(make_model(kind)), make_policy(make_model(kind, dropout=0.5))
        dropping.train()
        assert not any(module.training for module in dropping.modules())
        rows, lengths = random_rows(plain.spec, 8)
        assert torch.equal(dropping.evaluate(rows, lengths).logprobs, plain.evaluate(rows, lengths).logprobs)
        obs = rows.numpy().copy()
        obs[:, plain.spec.prompt_length :] = plain.spec.pad_id
        assert np.array_equal(dropping.act(obs)[1], plain.act(obs)[1])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradient_checkpointing_computes_again_without_dropout(
    kind: str, make_policy: Any, make_model: Any, random_rows: Any
) -> None:
    plain = make_policy(make_model(kind, dropout=0.5), critic="copy")
    checkpointed = make_policy(make_model(kind, dropout=0.5), critic="copy", gradient_checkpointing=True)
    rows, lengths = random_rows(plain.spec, 8)
    layers = checkpointed._trunk.h if kind == "gpt2" else checkpointed._trunk.layers
    calls: list[int] = []
    layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for policy in (plain, checkpointed):
        new = policy.evaluate(rows, lengths)
        (new.logprobs.sum() + new.values.sum()).backward()
    assert len(calls) == 2  # forward, and again in the backward pass
    for (name, one), (_, two) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    with torch.no_grad():
        checkpointed.evaluate(rows, lengths)
    assert len(calls) == 3
    assert not any(module.training for module in checkpointed.modules())


def test_bfloat16_computes_nearly_the_same_and_keeps_float32_weights(make_policy: Any, random_rows: Any) -> None:
    plain, mixed = make_policy("llama"), make_policy("llama", bf16=True)
    rows, lengths = random_rows(plain.spec, 16)
    one, two = plain.evaluate(rows, lengths), mixed.evaluate(rows, lengths)
    assert two.logprobs.dtype == two.values.dtype == torch.float32
    difference = (one.logprobs - two.logprobs).abs()
    assert 0 < difference.mean() < 0.05
    two.logprobs.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in mixed.parameters())
    obs = rows.numpy().copy()
    obs[:, plain.spec.prompt_length :] = plain.spec.pad_id
    for _ in range(3):
        actions, logprobs = mixed.act(obs)
        assert logprobs.dtype == np.float32
        column = np.argmax(obs == plain.spec.pad_id, axis=1).max()
        obs = obs.copy()
        obs[:, column] = actions


def test_weights_in_half_precision_are_refused(make_model: Any) -> None:
    with pytest.raises(ValueError, match=r"is torch\.bfloat16; small steps would be lost.*bf16=True"):
        LMActorCritic(make_model("gpt2").to(torch.bfloat16))


# -- critics -----------------------------------------------------------------------------------------------------------


def test_a_value_head_starts_at_zero_on_the_shared_trunk(make_model: Any, make_spec: Any, random_rows: Any) -> None:
    policy = LMActorCritic(make_model("gpt2"))
    policy.bind(make_spec())
    assert policy.critic is None
    assert not policy.evaluate(*random_rows(policy.spec, 4)).values.any()


def test_a_critic_of_its_own_starts_as_the_actor_and_goes_its_own_way(make_policy: Any, random_rows: Any) -> None:
    shared, own = make_policy(), make_policy(critic="copy")
    rows, lengths = random_rows(own.spec, 6)
    assert torch.equal(own.evaluate(rows, lengths).values, shared.evaluate(rows, lengths).values)
    own.evaluate(rows, lengths).values.sum().backward()
    assert all(p.grad is None for p in own.model.parameters())
    assert all(p.grad is not None for p in own.critic.parameters())


def _reward_model(seed: int = 3, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"vocab_size": 13, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "num_labels": 1}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 12}
    config = transformers.GPT2Config(**{**sizes, **special, **options})
    model = transformers.GPT2ForSequenceClassification(config).eval()
    nn.init.normal_(model.score.weight)
    return model


@pytest.mark.parametrize("form", ["model", "folder"])
def test_a_critic_from_a_reward_model_begins_with_its_judgement(
    form: str, make_model: Any, make_spec: Any, random_rows: Any, tmp_path: Any
) -> None:
    """At the last token the value is the reward model's score; the reward model itself is never touched."""
    judge = _reward_model()
    judge.save_pretrained(tmp_path / "judge")
    policy = LMActorCritic(make_model("gpt2"), critic=judge if form == "model" else tmp_path / "judge")
    policy.bind(make_spec())
    rows, lengths = random_rows(policy.spec, 5)
    lengths.clamp_(max=policy.spec.max_new_tokens - 1)
    rows[torch.arange(policy.spec.row_length) >= policy.spec.prompt_length + lengths[:, None]] = policy.spec.pad_id
    _, after = policy.values(rows, lengths)
    for row, value in zip(rows, after, strict=True):
        ids = row[row != policy.spec.pad_id][None]
        with torch.no_grad():
            score = judge(input_ids=ids).logits[0, 0]
        torch.testing.assert_close(value, score, atol=1e-5, rtol=0)
    before = {name: p.clone() for name, p in judge.named_parameters()}
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    policy.evaluate(rows, lengths).values.sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in judge.named_parameters())


def test_critics_that_do_not_serve(make_model: Any, make_spec: Any, tmp_path: Any) -> None:
    with pytest.raises(TypeError, match="critic must be 'shared', 'copy', a transformers model or the folder of one"):
        LMActorCritic(make_model("gpt2"), critic=3)
    with pytest.raises(ValueError, match=r"Cannot load the critic 'shard': it is no local folder"):
        LMActorCritic(make_model("gpt2"), critic="shard")
    policy = LMActorCritic(make_model("gpt2"), critic=_reward_model(vocab_size=9, pad_token_id=None))
    with pytest.raises(ValueError, match="The critic has embeddings for 9 tokens, the environment 11"):
        policy.bind(make_spec())
    policy = LMActorCritic(make_model("gpt2"), critic=_reward_model(n_positions=8))
    with pytest.raises(ValueError, match="The critic reads at most 8 tokens"):
        policy.bind(make_spec())


# -- references --------------------------------------------------------------------------------------------------------


def test_a_frozen_copy_agrees_at_first_and_never_changes(make_policy: Any, random_rows: Any) -> None:
    policy = make_policy(temperature=1.3, critic="copy")
    reference = policy.frozen_copy()
    policy.check_reference(reference)
    rows, lengths = random_rows(policy.spec, 8)
    first = reference.logprobs(rows, lengths)
    assert torch.equal(first, policy.logprobs(rows, lengths))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    policy.evaluate(rows, lengths).logprobs.sum().backward()
    optimizer.step()
    assert torch.equal(reference.logprobs(rows, lengths), first)
    assert (policy.logprobs(rows, lengths) - first).abs().max() > 0.1
    assert not any(p.requires_grad for p in reference.parameters())
    assert reference.critic is None


def test_references_that_do_not_serve(make_policy: Any, make_model: Any, make_spec: Any) -> None:
    policy = make_policy("gpt2")
    with pytest.raises(ValueError, match="would change with the policy: give a frozen copy"):
        policy.check_reference(policy)
    with pytest.raises(ValueError, match="would change with the policy"):
        policy.check_reference(make_policy("gpt2"))  # not frozen
    with pytest.raises(ValueError, match="a LlamaForCausalLM with 13 tokens, the policy a GPT2LMHeadModel with 13"):
        policy.check_reference(make_policy("llama").frozen_copy())
    with pytest.raises(ValueError, match="a GPT2LMHeadModel with 17 tokens, the policy a GPT2LMHeadModel with 13"):
        policy.check_reference(make_policy(make_model("gpt2", vocab_size=17)).frozen_copy())
    with pytest.raises(ValueError, match=r"The reference has temperature=0\.5, the policy 1\.0"):
        policy.check_reference(make_policy("gpt2", temperature=0.5).frozen_copy())
    with pytest.raises(ValueError, match=r"reference of a language model is one too: policy\.frozen_copy"):
        policy.check_reference(make_model("gpt2"))
    with pytest.raises(ValueError, match="no adapter"):
        policy.without_adapter()


@pytest.fixture
def adapted(make_model: Any, make_policy: Any) -> Any:
    """A policy over a LoRA model, and the model below it untouched."""
    peft = pytest.importorskip("peft")

    def make(kind: str) -> Any:
        targets = ["c_attn", "c_fc"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj"]
        fan = kind == "gpt2"
        config = peft.LoraConfig(
            r=2, target_modules=targets, fan_in_fan_out=fan, task_type="CAUSAL_LM", lora_dropout=0.5
        )
        return make_policy(peft.get_peft_model(make_model(kind), config)), make_policy(make_model(kind))

    return make


@OLD_NAME
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_adapter_is_trained_and_switched_off_it_is_the_reference(
    kind: str, adapted: Any, random_rows: Any, make_game: Any
) -> None:
    policy, plain = adapted(kind)
    reference = policy.without_adapter()
    policy.check_reference(reference)
    names = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert {name for name in names if "lora" not in name} == {"value_head.weight", "value_head.bias"}
    rows, lengths = random_rows(policy.spec, 8)
    before = reference.logprobs(rows, lengths)
    torch.testing.assert_close(before, plain.logprobs(rows, lengths), atol=1e-5, rtol=0)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the second factor of an adapter starts at 0, and the first has no gradient until it has moved
        optimizer.zero_grad()
        policy.evaluate(rows, lengths).logprobs.sum().backward()
        optimizer.step()
    assert torch.equal(reference.logprobs(rows, lengths), before)
    assert (policy.logprobs(rows, lengths) - before).abs().max() > 0.1
    assert {name for name, p in policy.named_parameters() if p.requires_grad} == names
    # decoding goes through the adapter
    game = make_game(6, policy.spec)
    game.ends[:] = policy.spec.max_new_tokens
    sampled = []
    for _ in range(policy.spec.max_new_tokens):
        obs = game.obs
        actions, logprobs = policy.act(obs)
        sampled.append(logprobs)
        finished = game.step(actions)
    final = torch.from_numpy(np.stack([row for _, row in finished]))
    whole = policy.logprobs(final, torch.full((6,), policy.spec.max_new_tokens))
    np.testing.assert_allclose(np.stack(sampled, 1), whole.numpy(), atol=1e-5)


@OLD_NAME
def test_learnt_prompts_are_refused(make_model: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="PromptTuningConfig puts learnt tokens before the prompt"):
        LMActorCritic(peft.get_peft_model(make_model("gpt2"), config))


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_same_seed_same_texts_and_neighbouring_seeds_share_no_stream(make_policy: Any) -> None:
    policy = make_policy()
    obs = np.full((64, policy.spec.row_length), policy.spec.pad_id)
    obs[:, : policy.spec.prompt_length] = 1

    def drawn(seed: int, predict: bool = False) -> list[int]:
        policy.bind(policy.spec, seed)
        return (policy.predict(obs, deterministic=False) if predict else policy.act(obs)[0]).tolist()

    assert drawn(0) == drawn(0)
    streams = [drawn(seed, predict) for seed in range(3) for predict in (False, True)]
    assert len({tuple(stream) for stream in streams}) == 6


def test_predictions_leave_no_trace_in_rollouts(make_policy: Any, make_game: Any) -> None:
    disturbed, alone = make_policy(), make_policy()
    games = make_game(8, alone.spec, seed=1), make_game(8, alone.spec, seed=1)
    other = make_game(5, alone.spec, seed=2)
    for _ in range(15):
        other.step(disturbed.predict(other.obs, deterministic=False))
        for policy, game in zip((disturbed, alone), games, strict=True):
            game.step(policy.act(game.obs)[0])
        assert np.array_equal(games[0].obs, games[1].obs)
    assert disturbed.rollout_decoder.prefilled_rows == alone.rollout_decoder.prefilled_rows


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_models_and_settings_that_do_not_serve(make_model: Any) -> None:
    transformers = pytest.importorskip("transformers")
    with pytest.raises(TypeError, match=r"causal language model of transformers .*; got Linear"):
        LMActorCritic(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="got GPT2Model"):
        LMActorCritic(make_model("gpt2").transformer)
    with pytest.raises(ValueError, match="temperature must be positive; got 0"):
        LMActorCritic(make_model("gpt2"), temperature=0)
    capped = make_model("gpt2")
    usual = capped.forward

    def with_cap(*arguments: Any, **others: Any) -> Any:
        output = usual(*arguments, **others)
        output.logits = 2.0 * (output.logits / 2.0).tanh()
        return output

    capped.forward = with_cap
    with pytest.raises(ValueError, match="does something to its logits after the output layer"):
        LMActorCritic(capped)
    sizes = {"vocab_size": 13, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    recurrent = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes))
    with pytest.raises(ValueError, match="MambaForCausalLM attends in a way that cannot be decoded token by token"):
        LMActorCritic(recurrent)


def test_environments_that_do_not_fit_the_model(make_model: Any, make_spec: Any) -> None:
    policy = LMActorCritic(make_model("gpt2"))
    obs = np.zeros((1, 5), dtype=np.int64)
    with pytest.raises(RuntimeError, match=r"belongs to no environment yet: call policy\.bind"):
        policy.act(obs)
    with pytest.raises(ValueError, match="has embeddings for 13 tokens, the environment 14"):
        policy.bind(make_spec(num_tokens=14))
    with pytest.raises(ValueError, match=r"reads at most 32 tokens; prompts of 20 and texts of 14 tokens need 33"):
        policy.bind(make_spec(prompt_length=20, max_new_tokens=14))
    policy.bind(make_spec(prompt_length=20, max_new_tokens=13))
    with pytest.raises(ValueError, match=r"has no prompts, and .* no BOS token to begin a text with"):
        policy.bind(make_spec(prompt_length=0))
    with_bos = LMActorCritic(make_model("gpt2", bos_token_id=12))
    with_bos.bind(make_spec(prompt_length=0))
    assert with_bos.bos_token_id == 12
    with pytest.raises(ValueError, match="need 33"):
        LMActorCritic(make_model("gpt2"), bos_token_id=12).bind(make_spec(prompt_length=20, max_new_tokens=13))


def test_an_environment_with_another_tokenizer_is_refused(make_model: Any, make_spec: Any) -> None:
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")

    def tokenizer(words: list[str]) -> Any:
        level = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
        return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(level), eos_token=words[-1])

    spec = make_spec()
    own = list(spec.vocab.tokens)
    LMActorCritic(make_model("gpt2"), tokenizer(own)).bind(spec)
    LMActorCritic(make_model("gpt2"), tokenizer([*own, "<bos>"])).bind(spec)  # more tokens than are written is fine
    for others in (own[::-1], own[:-1], [*own[:-1], "other"]):
        with pytest.raises(ValueError, match=r"made with another tokenizer.*tokenizer=policy\.tokenizer"):
            LMActorCritic(make_model("gpt2"), tokenizer(others)).bind(spec)

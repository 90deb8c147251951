"""What a pipeline's figures say, in sentences computed from them."""

from __future__ import annotations

from agents.rlhf.results import Results, Spread


def percent(value: Spread | None) -> str:
    """ "95 % (93–96)"."""
    if value is None:
        return "unknown"
    middle = f"{100 * value.median:.0f} %"
    return middle if value.count < 2 else f"{middle} ({100 * value.low:.0f}–{100 * value.high:.0f})"


def conclusions(results: Results) -> list[str]:
    """A paragraph each, and no more than the figures allow."""
    paragraphs = [_main(results), _free(results), _judge(results), _length(results), _caveat(results)]
    return [paragraph for paragraph in paragraphs if paragraph]


def _main(results: Results) -> str:
    main, base = results.main, results.base
    which = "gold" if results.figure(main, "gold") is not None else "reward"
    name = "gold score" if which == "gold" else "judge's score"
    before, after, kl = results.known(base, which), results.known(main, which), results.known(main, "kl")
    moved = "raises" if after.median > before.median else "lowers"
    text = (
        f"On held-out prompts PPO with kl_coef {main.removeprefix('ppo-')} {moved} the {name} from {before.text()} to "
        f"{after.text()}, at a KL divergence of {kl.text('.1f')} nats per text from the model it began with."
    )
    best = results.stage("evaluation", "best_texts")
    if results.lift is not None and best is not None:
        text += (
            f" That is {percent(results.lift)} of the way to {best.median:.2f}, which one in a hundred of the "
            f"grammar's own texts reaches."
        )
    grammatical = results.figure(main, "grammatical")
    if grammatical is not None:
        earlier = percent(results.figure(base, "grammatical"))
        text += f" {percent(grammatical)} of its texts are grammatical; before, {earlier} were."
    return text


def _free(results: Results) -> str:
    free = results.free
    if free is None:
        return ""
    paid, kl, held = results.known(free, "reward"), results.known(free, "kl"), results.known(results.main, "reward")
    higher = "higher" if paid.median > held.median else "no higher"
    text = (
        f"Without the penalty (kl_coef 0) the reward model's score gets {higher}, {paid.text()} against "
        f"{held.text()}, and the KL divergence is {kl.text('.1f')} nats."
    )
    gold, grammatical = results.figure(free, "gold"), results.figure(free, "grammatical")
    best = results.stage("evaluation", "best_texts")
    if grammatical is not None and gold is not None and best is not None:
        text += f" {percent(grammatical)} of the texts are grammatical, at a gold score of {gold.text()}"
        salad = gold.median > best.median and grammatical.median < 0.5
        text += ": word salad that scores above ninety-nine in a hundred of the grammar's own texts." if salad else "."
    return text


def _judge(results: Results) -> str:
    accuracy, comparisons = (results.stage("reward-model", name) for name in ("held_out_accuracy", "comparisons"))
    best = results.stage("rankings", "test", "best_possible_accuracy")
    if accuracy is None or comparisons is None:
        return ""
    text = (
        f"The reward model learnt from {comparisons.median:,.0f} comparisons and agrees with {percent(accuracy)} of "
        f"held-out ones; the annotator's noise allows {percent(best)}."
    )
    small, few = (results.stage("reward-model-small", name) for name in ("held_out_accuracy", "comparisons"))
    if small is not None and few is not None:
        text += f" One that learnt from {few.median:,.0f} agrees with {percent(small)}."
    return text


def _length(results: Results) -> str:
    before, after = results.known(results.base, "length"), results.known(results.main, "length")
    change = after.median - before.median
    if abs(change) < 0.5:
        return f"Texts have stayed as long as they were ({after.text('.1f')} tokens)."
    direction = "longer" if change > 0 else "shorter"
    return f"Texts have become {direction}: {before.text('.1f')} tokens before, {after.text('.1f')} after."


def _caveat(results: Results) -> str:
    if len(results.seeds) < 3:
        return "One or two seeds make no interval: run more with --seeds."
    return (
        f"Medians of {len(results.seeds)} seeds, lowest and highest in brackets; everything, pretraining included, was "
        f"done anew for each."
    )

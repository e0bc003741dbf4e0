"""From ranked merges to the scores by which a SentencePiece loader merges."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def sentencepiece_scores(
    tokens: Sequence[str], usual: Collection[int], merges: Sequence[tuple[str, str]]
) -> tuple[tuple[float, ...], str]:
    """Score every token so that merging the best-scored pair first is merging by rank.

    SentencePiece joins two neighbours whenever their union is a token, best score first; ranked
    merges join the listed pairs only. The two agree when every way to cut a token into two tokens
    is listed and all ways to make one token stand together.

    Args:
        usual: ids that take part in merging.

    Returns: a score for each token, and what makes it impossible (empty when it is possible).
    """
    rank: dict[str, int] = {}
    listed = set(merges)
    last = ""
    for first, second in merges:
        union = first + second
        if union in rank and union != last:
            return (), f"merges of {union!r} that do not stand together"
        rank.setdefault(union, len(rank))
        last = union
    known = {tokens[index] for index in usual}
    for token in known:
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair[0] in known and pair[1] in known and pair not in listed:
                return (), f"a token {token!r} that {pair[0]!r} and {pair[1]!r} do not merge into"
    worst = float(len(rank))
    scores = [0.0] * len(tokens)
    for index in usual:
        scores[index] = -float(rank.get(tokens[index], worst))
    return tuple(scores), ""

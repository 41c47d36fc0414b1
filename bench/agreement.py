"""Do the tiers agree on sentences and prompts that nobody has seen? Natively, with real weights.

    .venv/bin/python bench/agreement.py [--seed 5] [--prompts 20] [--tokens 24] [--other CHECKOUT]

MiniLM embeds fresh sentences, SmolLM2 continues fresh prompts greedily, each tier in a process of
its own, held against the reference tier (float64). Where two texts part, it prints by how much the
reference's logit of its token exceeds that of the other: a gap below TIE is a tie, since caches of
float16 move logits by as much. `--other` runs another version's tiers, too. Both models must be
there (`bascule pull`). The exit status is 1 where something differs by more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.versions import environment_of  # noqa: E402
from tests.goldens import cosines  # noqa: E402

TIERS = ("reference", "wasm", "cpu", "webgpu")
MIN_COSINE, TIE = 0.99999, 0.03
Text = dict[str, list[int]]  # the token ids of a "prompt" and of its "answer"
THINGS = (
    "bridge river engine recipe poem proof garden violin planet lantern harbour theorem kitchen "
    "compiler glacier market novel orchid teapot border café Straße 東京 мост 🚀 π"
)
QUALITIES = (
    "old quiet broken enormous cheap famous invisible wooden electric salty blue distant fragile "
    "unknown noisy useful"
)
SENTENCES = (
    "The {q} {a} near the {b} is {r} than the {c}.",
    "Why does a {q} {a} need {n} {b}s?",
    "{a}, {b} and {c}: {n}.{n} percent of them are {q}!",
    "def {a}({b}):\n    return {b} * {n}  # {q}",
    "«{a}» — {b} / {c}\t({q}, {r})",
)
PROMPTS = (
    "Name three {q} things that one finds in a {a}.",
    "Write one sentence about a {q} {a} and a {r} {b}.",
    "What is {n} plus {n}?",
    "Explain to a child what a {a} is.",
    "Translate to French: the {q} {a} is {r}.",
    "Continue: once upon a time, a {q} {a}",
    "Is a {a} more {q} than a {b}? Answer yes or no, and say why.",
    "Complete this Python function: def {q}_sum(values):",
)


def fresh(templates: tuple[str, ...], count: int, source: random.Random) -> list[str]:
    """Texts of one's own making."""
    result: list[str] = []
    for _ in range(count):
        words = dict(zip("abc", source.sample(THINGS.split(), 3), strict=True))
        q, r = source.sample(QUALITIES.split(), 2)
        result.append(source.choice(templates).format(q=q, r=r, n=source.randrange(2000), **words))
    return result


async def _work(tier: str, told: dict[str, Any]) -> dict[str, Any]:
    import bascule

    model = await bascule.load("all-MiniLM-L6-v2", tier=tier)
    embeddings = np.asarray(await model.embed(told["sentences"])).tolist()
    model.close()
    model = await bascule.load("SmolLM2-135M-Instruct", tier=tier)
    greedy = bascule.Sampling(temperature=0)
    texts: list[Text] = []
    for prompt in told["prompts"]:
        messages = [{"role": "user", "content": prompt}]
        text = await model.chat(messages, max_new_tokens=told["tokens"], sampling=greedy)
        texts.append({"prompt": text.prompt_ids, "answer": text.ids})
    model.close()
    return {"embeddings": embeddings, "texts": texts}


def answers(checkout: Path, tier: str, told: dict[str, Any]) -> dict[str, Any]:
    """What a version's tier gives for the texts."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--work", tier],
            env=environment_of(checkout, folder),
            input=json.dumps(told),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


async def _gap(ids: list[int], expected: int, found: int) -> float:
    """By how much the reference prefers its own token after these."""
    import bascule

    model = await bascule.load("SmolLM2-135M-Instruct", tier="reference")
    logits = np.asarray(await model.logits(ids))[-1]
    model.close()
    return float(logits[expected] - logits[found])


def difference(found: Text, right: Text) -> tuple[str, float]:
    """How an answer differs from the reference's, and by how much the reference prefers its own."""
    if found["prompt"] != right["prompt"]:
        return "other tokens than the reference's", np.inf
    both = zip(found["answer"], right["answer"], strict=False)
    at = next((at for at, (a, b) in enumerate(both) if a != b), None)
    if at is None:
        return "one answer ends before the other", np.inf
    before = [*right["prompt"], *right["answer"][:at]]
    gap = asyncio.run(_gap(before, right["answer"][at], found["answer"][at]))
    return f"parts at token {at}, the logits {gap:.4f} apart", gap


def compare(name: str, found: dict[str, Any], right: dict[str, Any], prompts: list[str]) -> bool:
    """Print how two answers differ; whether that is by ties alone."""
    minimum = cosines(found["embeddings"], right["embeddings"]).min()
    texts = zip(prompts, found["texts"], right["texts"], strict=True)
    parted = [(prompt, *difference(a, b)) for prompt, a, b in texts if a != b]
    n_equal = len(prompts) - len(parted)
    print(
        f"{name}: cosines at least 1 - {1 - minimum:.1e}, {n_equal} of {len(prompts)} texts equal"
    )
    for prompt, words, _ in parted:
        print(f"  {prompt!r}: {words}")
    # NaN is none.
    return bool(minimum >= MIN_COSINE) and all(gap < TIE for _, _, gap in parted)


def main() -> int:
    """Compare each tier with the reference tier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--other", type=Path, help="a checkout of another version")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(asyncio.run(_work(options.work, json.load(sys.stdin)))))
        return 0
    print(f"seed {options.seed}")
    source = random.Random(options.seed)
    told = {
        "sentences": fresh(SENTENCES, options.sentences, source),
        "prompts": fresh(PROMPTS, options.prompts, source),
        "tokens": options.tokens,
    }
    right = answers(ROOT, TIERS[0], told)
    is_right = True
    for checkout in (ROOT, *((options.other,) if options.other else ())):
        for tier in TIERS[1:]:
            found = answers(checkout, tier, told)
            name = tier if checkout == ROOT else f"{tier} of {checkout.name}"
            is_right &= compare(name, found, right, told["prompts"])
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())

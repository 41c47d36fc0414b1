"""How near embeddings stay to others of the same texts, and whether they rank alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Ten subjects, five sentences each: neighbours that an embedding should find, and far ones.
TEXTS = [
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun by the window.",
    "Our old dog refuses to leave his basket in winter.",
    "Two puppies chased each other around the garden.",
    "Parrots can live for more than fifty years.",
    "The central bank raised interest rates by half a point.",
    "Borrowing costs went up after the decision of the central bank.",
    "Shares of the airline fell sharply on Monday.",
    "Inflation slowed for the third month in a row.",
    "The company reported a loss for the last quarter.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "Plants make their own food from sunlight.",
    "The mitochondrion is where a cell turns food into energy.",
    "Enzymes speed up chemical reactions in living things.",
    "DNA is copied before a cell divides.",
    "A neutron star is the collapsed core of a massive star.",
    "Light from that galaxy took two billion years to reach us.",
    "The probe sent back pictures of the moons of Jupiter.",
    "Black holes bend the path of light that passes near them.",
    "The eclipse will be visible from northern Spain.",
    "Preheat the oven and grease a deep baking tin.",
    "Whisk the eggs with sugar until the mixture is pale.",
    "Simmer the tomato sauce for twenty minutes.",
    "Knead the dough, then let it rise for an hour.",
    "This curry needs more ginger and a little salt.",
    "The striker scored twice in the second half.",
    "They lost the final on penalties.",
    "She broke the national record over ten thousand metres.",
    "The match was stopped because of heavy rain.",
    "Rowing needs strength, timing and early mornings.",
    "How do I reset the password of my account?",
    "I forgot my password and cannot log in.",
    "The app crashes whenever I open the settings.",
    "Where can I download my invoices?",
    "Please cancel my subscription at the end of the month.",
    "Der Zug nach Hamburg hat zwanzig Minuten Verspätung.",
    "The train to Hamburg is twenty minutes late.",
    "Trams stop running shortly after midnight.",
    "The bridge is closed to lorries until spring.",
    "Take the second exit at the roundabout.",
    "def add(a, b): return a + b",
    "A function that returns the sum of its two arguments.",
    "The segmentation fault came from a dangling pointer.",
    "SELECT name FROM users WHERE age > 30;",
    "Unit tests should not depend on the network.",
    "The treaty was signed in 1648 after decades of war.",
    "Rome was ruled by kings before it became a republic.",
    "The museum shows coins from the time of the emperors.",
    "Printing made books cheap within a single lifetime.",
    "yes",
]


@dataclass(frozen=True, slots=True)
class Quality:
    """Cosines text by text; Spearman's rank correlation of all pairs' similarities; the share of
    texts whose nearest neighbour is the same.
    """

    cosine_mean: float
    cosine_min: float
    spearman: float
    same_neighbour: float

    def __str__(self) -> str:
        return (
            f"cosine mean {self.cosine_mean:.5f} min {self.cosine_min:.5f} "
            f"Spearman {self.spearman:.4f} same nearest {self.same_neighbour:.2f}"
        )


def quality(found: Array, expected: Array) -> Quality:
    """Compare embeddings (n, C) with the expected ones of the same texts."""
    a, b = _unit(found), _unit(expected)
    cosines = (a * b).sum(axis=1)
    alike, wanted = a @ a.T, b @ b.T
    pairs = np.triu_indices(len(a), 1)
    for similarities in (alike, wanted):
        np.fill_diagonal(similarities, -np.inf)
    spearman = np.corrcoef(_ranks(alike[pairs]), _ranks(wanted[pairs]))[0, 1]
    same = (alike.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    return Quality(float(cosines.mean()), float(cosines.min()), float(spearman), float(same))


def _unit(x: Array) -> Array:
    wide = np.asarray(x, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _ranks(x: Array) -> Array:
    return np.argsort(np.argsort(x))

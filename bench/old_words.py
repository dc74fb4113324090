"""Old words: those of version 0.1 that the field's words have replaced, as patterns over names and text.

A word that English needs (way, held out, says why) is old in the sense that it had here: the pattern names that sense.
"""

import re

OLD_NAMES = frozenset({
    "verdict", "plain", "signal", "signals", "settle", "settled", "settling", "palette", "book", "books", "recode", "pens",
    "wish", "wishes", "climb", "ladder", "currency", "price", "prices", "priced", "damage", "damages", "doubt", "doubts",
    "doubted", "outlook", "forecast", "remembered", "budget", "budgeting", "fitting", "fittings", "evaluating",
    "told", "said", "says", "lent", "spoilt", "follower", "followers", "heard", "twin", "twins", "hollow", "lopsided", "nought",
})  # fmt: skip
"""Words that no identifier has as a part."""

OLD_TEXT = re.compile(
    r"\b(?:"
    # data, networks, activations, metrics
    r"choice data|verdicts?|plain (?:network|net|one|file)s?|plain=|signals?|WeightScore|(?<!bench/)scores/(?=\w)|"
    # methods and their knobs
    r"settl(?:e|ed|es|ing)\b|(?<![-\w])tune[ds]?\b(?!\s*=)|prune/rate\b(?!_)|(?<=`)match(?=`)|"
    # forms and editing
    r"held as|three pens|recode[ds]?|palettes?|books?|weight\.put|"
    # planner
    r"wish(?:es|ed)?|climbs?|ladders?|currency|price[ds]?|nats apart|damages|doubt\w*|outlooks?|forecasts?|remembered|"
    r"budget(?:s|ing)?|"
    # files that have the names of what they do
    r"fittings?|evaluating|cortado[./](?:together|recorded|tried|named)|"
    # everyday words in the place of a term, and idiom
    r"told|said|lent|spoilt|followers?|heard|twins?|hollow|lopsided|"
    r"what a network answers|goes on|in one go|for itself|nought|anew|lies"
    r")(?:\b|(?<=[=/]))",
    re.IGNORECASE,
)
"""What stands nowhere in docstrings, comments, messages and pages."""

"""Fair recipes: the learning rate's rule over widths checked, and a recipe searched for.

rates.py     short runs that check the rule before a sweep
space.py     what may be varied: the recipe, and depth against width
search.py    recipes proposed, trained and learned from
confirm.py   which of the best few is best over seeds that had no part in finding them
verify.py    the recipe that was found beside the study's own, on seeds, samples and sizes that had no part in it
tuned.py     a search and its verification, as one record
said.py      that record in words
"""

from sizewise.tune.confirm import confirm
from sizewise.tune.said import flags, sentences
from sizewise.tune.search import How, Searched, search
from sizewise.tune.space import Space
from sizewise.tune.tuned import tuned
from sizewise.tune.verify import verify

__all__ = ["How", "Searched", "Space", "confirm", "flags", "search", "sentences", "tuned", "verify"]

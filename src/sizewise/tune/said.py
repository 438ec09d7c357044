"""What a search for a recipe came to, in words."""

from __future__ import annotations

from collections.abc import Iterator

from sizewise import words
from sizewise.recipe import OPTIMIZERS
from sizewise.records import Tried, TunedRecipe, Verification
from sizewise.tune.confirm import SEEDS
from sizewise.tune.space import at_an_end

OWN = "the study's own"
STANDING = {"better": "better than", "worse": "worse than", "undetermined": "not told apart from"}
VARIED = ("epochs", "optimizer", "lr", "weight_decay", "batch_size", "schedule", "augment", "dropout")


def sentences(found: TunedRecipe) -> Iterator[str]:
    """The search, its cost, and each verification."""
    share = found.early_seconds / found.seconds if found.seconds else 0.0
    early = f"{found.stopped} stopped early, after {found.early_seconds:.0f} s ({share:.0%}); " if found.stopped else ""
    yield (
        f"{found.tried} recipes tried at width {found.width} in {found.seconds:.0f} s of training; {early}"
        f"verified in {found.verify_seconds:.0f} s"
    )
    yield f"best {_by(found)}: {flags(found) or OWN}"
    if (end := at_an_end(found.own, found.recipe)) is not None:
        yield (
            f"its learning rate is the {end} that is tried: a better one may lie beyond; "
            f"to search there: {_there(found)}"
        )
    if found.family != found.own_family:
        yield (
            f"{found.family} is compared with {found.own_family} at as many parameters: "
            + ", ".join(f"{v.params:,} beside width {v.width}" for v in found.verified)
        )
    for one in found.verified:
        yield _verified(one)
    small, large = found.verified[0], found.verified[-1]
    if small.verdict == "better" and large.verdict != "better":
        yield f"it is not shown to carry over to width {large.width}; to search there: --at {large.width}"
    yield from (f"a recipe could not be tried: {reason}" for reason in found.failed)
    if found.frontier:
        yield "the lowest validation loss for its training time, of one run each, which another seed may turn round:"
        yield from (f"  {one.loss:.4g} in {one.seconds:.1f} s: {flags(found, one) or OWN}" for one in found.frontier)


def _by(found: TunedRecipe) -> str:
    """What the best is best of, and by what."""
    few = len(found.leaders)
    return f"of the {few} lowest validation losses, over {len(SEEDS)} other seeds" if few > 1 else "by validation loss"


def flags(found: TunedRecipe, tried: TunedRecipe | Tried | None = None) -> str:
    """The flags that make the study's own recipe and family those that were found, or others that were tried."""
    tried, own = tried or found, found.own
    recipe = tried.recipe
    changed = {name: getattr(recipe, name) for name in VARIED if getattr(recipe, name) != getattr(own, name)}
    shape = {"family": tried.family} if tried.family != found.own_family else {}
    return " ".join(f"--{name.replace('_', '-')} {_plain(value)}" for name, value in (shape | changed).items())


def _there(found: TunedRecipe) -> str:
    """The flags of a search around the rate that was found: a factor of Prodigy's is no rate of others."""
    finds = OPTIMIZERS[found.own.optimizer].factor
    return (f"--optimizer {found.recipe.optimizer} " if finds else "") + f"--lr {found.recipe.lr:.3g}"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def _verified(v: Verification) -> str:
    metric = v.fresh.metric
    gap = metric.gain(v.validation.a_mean, v.fresh.a_mean) * (100 if metric.share else 1)
    unseen, on_validation = words.difference(v.fresh.difference, metric), v.validation.difference
    return (
        f"width {v.width}: {STANDING[v.verdict]} {OWN} on {v.samples:,} samples that neither saw: {unseen} over "
        f"{v.fresh.difference.n} seeds, for other samples too {words.interval(v.fresh.population, metric)}; on "
        f"validation {words.interval(on_validation, metric)}, of which {words.interval(v.optimism, metric)} is "
        f"the search's own; its score is {words.score(v.fresh.a_mean, metric)} there and "
        f"{words.score(v.validation.a_mean, metric)} on validation, a gap of {gap:+.2f} {words.unit(metric)}"
    )

"""The nouns: frozen records that the stages pass to one another, and their JSON form.

A record is data only. Stages are functions from records to records, so a study can be stopped, resumed,
moved and read by other programs at any stage boundary. The files are in the order of the stages:

    estimate.py    an uncertain number
    task.py        what is learned
    trial.py       one model to train
    run.py         what training takes and gives
    law.py         from runs to a law, and what follows from it
    choice.py      what is wrong with a sweep, which size to take, which run would say more
    candidate.py   models to ship
    cluster.py     the machines that a study may use
    tuned.py       a recipe that was searched for
    precedent.py   what a finished study leaves for later ones
    form.py        records as JSON, and back
"""

from sizewise.records.candidate import (
    Blame,
    Candidate,
    Compression,
    Export,
    Measurement,
    OperatingPoint,
    Precision,
    Recommendation,
    RuntimeName,
    Scenario,
    ScenarioName,
    Search,
    Target,
    Winner,
)
from sizewise.records.choice import (
    AdaptiveSweep,
    Batch,
    Budget,
    Choice,
    Comparison,
    Decisions,
    DesignedRun,
    Finding,
    NextRun,
    RateCheck,
    Tuning,
)
from sizewise.records.cluster import Cluster, NodeLoad, Packing
from sizewise.records.estimate import Estimate, Metric
from sizewise.records.form import from_json, to_json
from sizewise.records.law import (
    Agreement,
    BackTest,
    ComputeOptimal,
    Contour,
    Exclusion,
    FittedForm,
    Growth,
    Law,
    Link,
    More,
    OptimalSize,
    ServingOptimal,
    Spending,
)
from sizewise.records.precedent import Guess, Precedent
from sizewise.records.run import Cost, Engine, Failure, Parallelism, Plan, Point, Run, Scores, Strategy, Tier
from sizewise.records.task import Layout, Problem, Reading, Signature
from sizewise.records.trial import Origin, Recipe, Trial, Weights
from sizewise.records.tuned import Proposal, Tried, TunedRecipe, Verification

__all__ = [
    "AdaptiveSweep",
    "Agreement",
    "BackTest",
    "Batch",
    "Blame",
    "Budget",
    "Candidate",
    "Choice",
    "Cluster",
    "Comparison",
    "Compression",
    "ComputeOptimal",
    "Contour",
    "Cost",
    "Decisions",
    "DesignedRun",
    "Engine",
    "Estimate",
    "Exclusion",
    "Export",
    "Failure",
    "Finding",
    "FittedForm",
    "Growth",
    "Guess",
    "Law",
    "Layout",
    "Link",
    "Measurement",
    "Metric",
    "More",
    "NextRun",
    "NodeLoad",
    "OperatingPoint",
    "OptimalSize",
    "Origin",
    "Packing",
    "Parallelism",
    "Plan",
    "Point",
    "Precedent",
    "Precision",
    "Problem",
    "Proposal",
    "RateCheck",
    "Reading",
    "Recipe",
    "Recommendation",
    "Run",
    "RuntimeName",
    "Scenario",
    "ScenarioName",
    "Scores",
    "Search",
    "ServingOptimal",
    "Signature",
    "Spending",
    "Strategy",
    "Target",
    "Tier",
    "Trial",
    "Tried",
    "TunedRecipe",
    "Tuning",
    "Verification",
    "Weights",
    "Winner",
    "from_json",
    "to_json",
]

"""Check and convert the arguments of every method of the catalogue, in one place."""

from underfire.catalog import callers
from underfire.checked_calls.measures import call_measure
from underfire.checked_calls.methods import (
    call_attack,
    call_defense,
    call_fit,
    call_interpreter,
    call_score,
    call_training,
)

callers |= {
    "attack": call_attack,
    "interpreter": call_interpreter,
    "fit": call_fit,
    "score": call_score,
    "measure": call_measure,
    "defense": call_defense,
    "training": call_training,
}

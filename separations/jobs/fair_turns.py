"""Fair turns in the queue: the round in which an owner's next song is due, and priorities.

The order that follows from both is `models.queue_order`.
"""

import math
from collections import Counter

from django.conf import settings
from django.db.models import Max, Min

from separations.engine.options import work
from separations.engine.weights.store import read_model
from separations.fair_use import quotas
from separations.models import Job, JobQuerySet, Owner

FIRST, IN_TURN, LAST = 1, 0, -1  # the priorities; staff can change them
SONGS_OF_A_RANGE = 4  # in a round of the queue, of all visitors without an account in it
ROUND_SECONDS = 600.0  # of sound gone over once, which a place in a round stands for


def next_turn(owner: Owner, seconds: float = 0.0) -> int:
    """The round of the queue in which the next song of `owner` is due.

    Each owner has one song in every round, so that no owner waits for another's whole list. A
    newcomer joins the round after the one that is served now, so no stream of newcomers delays
    those who wait already. A visitor who drops the cookie is a newcomer each time; therefore
    visitors without an account share a few places in each round with all others of their address
    range, and of the wider ones.

    Args:
        seconds: of sound to process. A song that takes as long as several comes as many rounds
            later, or a few songs with many passes would keep newcomers waiting for hours.
    """
    served = Job.objects.running().aggregate(turn=Max("turn"))["turn"]
    in_turn = Job.objects.active().filter(priority__gte=IN_TURN)
    next_up = in_turn.waiting().aggregate(turn=Min("turn"))["turn"]
    own = in_turn.of(owner).aggregate(turn=Max("turn"))["turn"]
    now = [turn for turn in (served, next_up) if turn is not None]
    later = max(0, math.ceil(seconds / ROUND_SECONDS) - 1)
    turn = 1 + later + max(min(now, default=-1), -1 if own is None else own)
    if ranges := quotas.address_hash_prefixes(owner):
        widest, _range = ranges[0]
        beside = in_turn.filter(network__startswith=widest, turn__gte=turn)
        due = list(beside.values_list("turn", "network"))
        full = set[int]()
        for prefix, each in ranges:
            taken = Counter(place for place, theirs in due if theirs.startswith(prefix))
            full |= {place for place, n in taken.items() if n >= SONGS_OF_A_RANGE * each.factor}
        while turn in full:
            turn += 1
    return turn


def seconds_of_work(job: Job) -> float:
    """Seconds of sound that a stored job takes to process, as `next_turn` counts them.

    Raises:
        Fault: when the model cannot be used, or has no such stem.
    """
    model = read_model(settings.MODEL_DIR, job.model)
    return job.upload.seconds * work(job.separation, model)


def prioritise(jobs: JobQuerySet, priority: int) -> int:
    """Move queued jobs before (FIRST) or behind (LAST) all others, or back (IN_TURN)."""
    return jobs.filter(state=Job.State.QUEUED).update(priority=priority)

"""The database records, a file for each group.

A job's row is the truth about it; a queue message only hints that there is work.
"""

from separations.models.api_token import ApiToken, ApiTokenQuerySet
from separations.models.bounds import LONGEST
from separations.models.fault_count import FaultCount
from separations.models.job import Job, folder_of
from separations.models.job_queries import JobQuerySet
from separations.models.owner import Owner
from separations.models.queue import PRESENCE_SECONDS, Consumer, ConsumerQuerySet, QueueSwitch
from separations.models.share_link import ShareLink
from separations.models.stem import Stem
from separations.models.throttling import AddressChanges, Bucket, IdempotencyKey
from separations.models.transition import Transition
from separations.models.upload import Upload
from separations.models.webhook import Delivery, DeliveryQuerySet, WebhookKey

__all__ = [
    "LONGEST",
    "PRESENCE_SECONDS",
    "AddressChanges",
    "ApiToken",
    "ApiTokenQuerySet",
    "Bucket",
    "Consumer",
    "ConsumerQuerySet",
    "Delivery",
    "DeliveryQuerySet",
    "FaultCount",
    "IdempotencyKey",
    "Job",
    "JobQuerySet",
    "Owner",
    "QueueSwitch",
    "ShareLink",
    "Stem",
    "Transition",
    "Upload",
    "WebhookKey",
    "folder_of",
]

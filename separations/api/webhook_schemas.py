"""Schemas of what webhooks send; `webhooks.events` writes it."""

import uuid
from datetime import datetime

from ninja import Field, Schema

from separations.api.named_values import FaultCode, Status, WebhookEvent


class WebhookError(Schema):
    """Why a song failed."""

    code: FaultCode
    detail: str = Field(description="In English.")


class WebhookData(Schema):
    """The song that ended."""

    task_id: uuid.UUID
    status: Status
    error: WebhookError | None = Field(description="Why it failed.")
    cached: bool = Field(description="Whether nothing had to run: the result was there.")
    stems: list[str] = Field(description="Their names; empty unless it is completed.")


class WebhookCall(Schema):
    """The body of a webhook's call."""

    type: WebhookEvent
    timestamp: datetime = Field(description="When the song ended.")
    data: WebhookData

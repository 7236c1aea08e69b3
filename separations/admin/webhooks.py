"""Webhook deliveries and consumers in the admin."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from separations.admin.base import NoDeletion, QuickAdmin
from separations.admin.jobs import job_link
from separations.models import Consumer, Delivery
from separations.webhooks import events


@admin.register(Delivery)
class DeliveryAdmin(NoDeletion, QuickAdmin[Delivery]):
    list_display = (
        "address",
        "of",
        "status",
        "tries",
        "next_time",
        "answer",
        "created_at",
    )
    list_filter = ("state", "created_at")
    search_fields = ("=job__pk", "url")
    list_select_related = ("job__upload",)
    actions = ("send_again",)

    @admin.display(description=_("address"))
    def address(self, delivery: Delivery) -> str:
        return delivery.url

    @admin.display(description=_("job"))
    def of(self, delivery: Delivery) -> SafeString:
        return job_link(delivery.job)

    @admin.display(description=_("state"))
    def status(self, delivery: Delivery) -> str:
        return delivery.get_state_display()

    @admin.display(description=_("attempts"))
    def tries(self, delivery: Delivery) -> int:
        return delivery.attempts

    @admin.display(description=_("next attempt"), empty_value="")
    def next_time(self, delivery: Delivery) -> Any:
        return delivery.next_at if delivery.state == Delivery.State.WAITING else None

    @admin.display(description=_("last answer"))
    def answer(self, delivery: Delivery) -> str:
        return delivery.outcome

    def has_handle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("separations.change_delivery")

    @admin.action(description=_("Send again now"), permissions=("handle",))
    def send_again(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        if not settings.WEBHOOKS:
            text = gettext("Webhooks are switched off (WEBHOOKS): nothing is sent.")
            self.message_user(request, text, messages.WARNING)
            return
        count = events.resend(chosen.order_by())
        text = ngettext(
            "%(count)d delivery is sent again.", "%(count)d deliveries are sent again.", count
        )
        self.message_user(request, text % {"count": count})


@admin.register(Consumer)
class ConsumerAdmin(NoDeletion, QuickAdmin[Consumer]):
    list_display = ("host", "pid", "is_there", "started_at", "heartbeat_at", "slot_count")
    sortable_by = ()
    actions = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Consumer]:
        return super().get_queryset(request).with_liveness()  # type: ignore[attr-defined, no-any-return]

    @admin.display(description=_("runs"), boolean=True)
    def is_there(self, consumer: Any) -> bool:
        return bool(consumer.is_alive)

    @admin.display(description=_("slots"))
    def slot_count(self, consumer: Consumer) -> int:
        return len(consumer.slots)

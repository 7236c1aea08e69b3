"""Accounts and their API tokens in the admin."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from separations import accounts
from separations.admin.quick import BoundedPaginator, QuickAdmin, QuickChangeList, Undeletable
from separations.models import ApiToken, Job

admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(UserAdmin[User]):
    """Django's, but songs go with their owner; else nobody who has any could be deleted."""

    list_display = ("username", "email", "songs", "is_active", "is_staff", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")
    sortable_by = ("username",)
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_max_show_all = 0
    change_list_template = "admin/separations/change_list.html"

    class Media:
        css = {"all": ("css/control.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QuickChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        own = Job.objects.filter(user=OuterRef("pk")).order_by().values("user")
        counted = own.annotate(count=Count("pk")).values("count")
        songs = Subquery(counted, output_field=IntegerField())
        return super().get_queryset(request).annotate(song_count=songs)

    @admin.display(description=_("songs"))
    def songs(self, user: Any) -> SafeString:
        address = reverse("admin:separations_job_changelist")
        text = '<a href="{}?user__id__exact={}">{}</a>'
        return format_html(text, address, user.pk, user.song_count or 0)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What goes with an account asks for no permission, and its songs forbid nothing."""
        shown, counts, _missing, _songs = super().get_deleted_objects(objs, request)
        return shown, counts, set(), []

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        accounts.delete_account(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            accounts.delete_account(user)


@admin.register(ApiToken)
class ApiTokenAdmin(Undeletable, QuickAdmin[ApiToken]):
    """The token itself is nowhere, and of its hash nothing is shown."""

    list_display = (
        "name",
        "account",
        "begins",
        "created_at",
        "used_at",
        "expires_at",
        "revoked_at",
    )
    list_filter = ("created_at",)
    search_fields = ("name", "=hint", "=user__username")
    list_select_related = ("user",)
    exclude = ("token_hash",)
    actions = ("revoke",)

    @admin.display(description=_("user"))
    def account(self, token: ApiToken) -> str:
        return token.user.get_username()

    @admin.display(description=_("begins with"))
    def begins(self, token: ApiToken) -> SafeString:
        return format_html("<code>{}…</code>", token.hint)

    def has_handle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("separations.change_apitoken")

    @admin.action(description=_("Revoke"), permissions=("handle",))
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiToken]) -> None:
        count = chosen.filter(revoked_at=None).order_by().update(revoked_at=timezone.now())
        text = ngettext("%(count)d token was revoked.", "%(count)d tokens were revoked.", count)
        self.message_user(request, text % {"count": count})

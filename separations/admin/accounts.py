"""Accounts, groups and API tokens in the admin.

Only superusers grant staff status, groups, permissions and superuser status. Staff with the
permission to change or delete accounts may do so for accounts without any of these; otherwise they
could take over a colleague's by its password or e-mail address.
"""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group, User
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from separations.access import api_tokens
from separations.admin.base import BoundedPaginator, NoDeletion, QuickAdmin, QuickChangeList
from separations.admin.lookups import OfferedLookups
from separations.jobs import ownership
from separations.models import ApiToken, Job
from separations.models.account_names import UniqueName

admin.site.unregister((User, Group))
POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")


class AddForm(UniqueName, AdminUserCreationForm[User]):
    pass


class ChangeForm(UniqueName, UserChangeForm[User]):
    pass


@admin.register(User)
class AccountAdmin(OfferedLookups[User], UserAdmin[User]):
    """Django's, but deleting an account deletes its songs too, which protect it otherwise."""

    form = ChangeForm
    add_form = AddForm
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

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Fields that the form shows but does not accept."""
        fields = super().get_readonly_fields(request, obj)
        return fields if _is_superuser(request) else (*fields, *POWERS)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """An account's rows need no permissions of their own, and its songs do not protect it."""
        shown, counts, _missing, _songs = super().get_deleted_objects(objs, request)
        forbidden = any(not self.has_delete_permission(request, user) for user in objs)
        return shown, counts, {User._meta.verbose_name} if forbidden else set(), []

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        ownership.delete_account(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            if self.has_delete_permission(request, user):
                ownership.delete_account(user)


def _is_superuser(request: HttpRequest) -> bool:
    return request.user.is_active and getattr(request.user, "is_superuser", False)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    """Whether the requester may change or delete this account; None: any account at all."""
    if user is None or _is_superuser(request):
        return True
    powers = user.is_staff or user.is_superuser
    return not (powers or user.groups.exists() or user.user_permissions.exists())


@admin.register(Group)
class PowersAdmin(OfferedLookups[Group], GroupAdmin):
    """Superusers alone: a change of a group grants permissions to all its members."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return _is_superuser(request) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return _is_superuser(request) and super().has_delete_permission(request, obj)


@admin.register(ApiToken)
class ApiTokenAdmin(NoDeletion, QuickAdmin[ApiToken]):
    """Shows no token, which is not stored, and no hash of one."""

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
        count = api_tokens.revoke_all(chosen)
        text = ngettext("%(count)d token was revoked.", "%(count)d tokens were revoked.", count)
        self.message_user(request, text % {"count": count})

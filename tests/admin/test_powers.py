"""Staff do what their permissions allow, and grant no more to themselves or others."""

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_queue", "site_settings", "quick_hashes"),
]
GOOD = "a mixture of 4 stems"
WHEN = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
USERS = "/admin/auth/user/"


@pytest.fixture
def clerk() -> User:
    """Staff with every permission there is for accounts and groups."""
    user = User.objects.create_user("clerk", password=GOOD, is_staff=True)
    about = Permission.objects.filter(content_type__model__in=("user", "group"))
    user.user_permissions.set(about)
    return user


@pytest.fixture
def client(clerk: User) -> Client:
    client = Client()
    client.force_login(clerk)
    return client


def powers(user: User) -> tuple[bool, bool, int, int]:
    user.refresh_from_db()
    groups, permissions = user.groups.count(), user.user_permissions.count()
    return user.is_staff, user.is_superuser, groups, permissions


@pytest.fixture
def everything() -> dict[str, object]:
    group = Group.objects.create(name="all")
    group.permissions.set(Permission.objects.all())
    return {
        "is_active": "on",
        "is_staff": "on",
        "is_superuser": "on",
        "groups": [str(group.pk)],
        "user_permissions": [str(each.pk) for each in Permission.objects.all()],
    }


def test_staff_give_nobody_power(
    clerk: User, client: Client, everything: dict[str, object]
) -> None:
    anna = User.objects.create_user("anna", "a@example.org")
    form = {"username": "anna", "email": "b@example.org", **WHEN, **everything}
    assert client.post(f"{USERS}{anna.pk}/change/", form).status_code == 302
    assert powers(anna) == (False, False, 0, 0)
    assert anna.email == "b@example.org", "what they may change, they can"
    before = powers(clerk)
    form["username"] = "clerk"
    assert client.post(f"{USERS}{clerk.pk}/change/", form).status_code == 403
    assert powers(clerk) == before


def test_staff_add_accounts_without_power(client: Client, everything: dict[str, object]) -> None:
    passwords = {"usable_password": "true", "password1": GOOD, "password2": GOOD}
    client.post(f"{USERS}add/", {"username": "new", **passwords, **everything})
    assert powers(User.objects.get(username="new")) == (False, False, 0, 0)


@pytest.mark.parametrize("kind", ["superuser", "colleague", "retired", "permitted", "member"])
def test_staff_touch_no_account_that_has_power(
    clerk: User, client: Client, everything: dict[str, object], kind: str
) -> None:
    boss = User.objects.create_user("boss", "boss@example.org", GOOD)
    User.objects.filter(pk=boss.pk).update(
        is_superuser=kind in ("superuser", "retired"),
        is_staff=kind == "colleague",
        is_active=kind != "retired",
    )
    if kind == "permitted":
        boss.user_permissions.add(Permission.objects.all()[0])
    if kind == "member":
        boss.groups.add(Group.objects.get())
    boss.refresh_from_db()
    form = {"username": "boss", "email": "clerk@example.org", "is_active": "on", **WHEN}
    assert client.get(f"{USERS}{boss.pk}/change/").status_code == 200, "to see is not to change"
    assert client.post(f"{USERS}{boss.pk}/change/", form).status_code == 403
    new = {"usable_password": "true", "password1": "a long phrase", "password2": "a long phrase"}
    assert client.post(f"{USERS}{boss.pk}/password/", new).status_code == 403
    assert client.get(f"{USERS}{boss.pk}/password/").status_code == 403
    assert client.post(f"{USERS}{boss.pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [str(boss.pk)], "post": "yes"}
    assert client.post(USERS, chosen).status_code == 403
    after = User.objects.get(pk=boss.pk)
    assert (after.email, after.password) == (boss.email, boss.password)
    assert after.is_active == boss.is_active


def test_one_account_with_power_among_many_stops_them_all(client: Client) -> None:
    User.objects.create_user("anna")
    User.objects.create_superuser("boss")
    every = [str(user.pk) for user in User.objects.all()]
    chosen = {"action": "delete_selected", "_selected_action": every, "post": "yes"}
    assert client.post(USERS, chosen).status_code == 403
    assert User.objects.count() == 3


def test_staff_delete_what_has_no_power(client: Client, clerk: User) -> None:
    anna, bert = User.objects.create_user("anna"), User.objects.create_user("bert")
    client.post(f"{USERS}{anna.pk}/delete/", {"post": "yes"})
    chosen = {"action": "delete_selected", "_selected_action": [str(bert.pk)], "post": "yes"}
    client.post(USERS, chosen)
    assert list(User.objects.all()) == [clerk]


def test_staff_give_no_group_permissions(client: Client, clerk: User) -> None:
    group = Group.objects.create(name="helpers")
    clerk.groups.add(group)
    form = {"name": "helpers", "permissions": [str(Permission.objects.all()[0].pk)]}
    assert client.get(f"/admin/auth/group/{group.pk}/change/").status_code == 200
    assert client.post(f"/admin/auth/group/{group.pk}/change/", form).status_code == 403
    assert client.post("/admin/auth/group/add/", form).status_code == 403
    assert client.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 403
    assert not group.permissions.exists()


def test_superusers_give_power(admin_client: Client, everything: dict[str, object]) -> None:
    anna = User.objects.create_user("anna")
    form = {"username": "anna", **WHEN, **everything}
    assert admin_client.post(f"{USERS}{anna.pk}/change/", form).status_code == 302
    staff, superuser, groups, permissions = powers(anna)
    assert (staff, superuser, groups) == (True, True, 1)
    assert permissions == Permission.objects.count()
    group = Group.objects.get()
    changed = admin_client.post(f"/admin/auth/group/{group.pk}/change/", {"name": "some"})
    assert changed.status_code == 302
    assert not group.permissions.exists()

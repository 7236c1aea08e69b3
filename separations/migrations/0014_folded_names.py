"""Account names are folded from here on: see `separations.models.account_names`, of which this is a copy."""

import unicodedata

from django.conf import settings
from django.db import migrations

INVISIBLE = dict.fromkeys((0x115F, 0x1160, 0x3164, 0xFFA0))


def fold(name):
    while True:
        folded = unicodedata.normalize("NFKC", name).translate(INVISIBLE).casefold().strip()
        if folded == name:
            return folded
        name = folded


def fold_names(apps, schema_editor):
    """Of accounts whose names become the same, the oldest keeps it; the others get a number."""
    User = apps.get_model("auth", "User")
    users = list(User.objects.order_by("pk").only("pk", "username"))
    taken = {user.username for user in users if fold(user.username) == user.username}
    for user in users:
        wanted = name = fold(user.username)[:150] or "nameless"
        if name == user.username:
            continue
        number = 2
        while name in taken:
            name = f"{wanted[:140]}-{number}"
            number += 1
        taken.add(name)
        if name != wanted:
            print(f"\n    The account {user.username!r} ({user.pk}) is now {name!r}.", end="")
        User.objects.filter(pk=user.pk).update(username=name)


class Migration(migrations.Migration):
    dependencies = [
        ("separations", "0013_a_stage_for_room"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [migrations.RunPython(fold_names, migrations.RunPython.noop)]

"""An account's e-mail address is a confirmed one from here on.

Those of before were never confirmed: anybody could have given anybody's. They are forgotten, but
for the staff's, whose accounts the operator made.
"""

from django.db import migrations


def forget_unconfirmed(apps, schema_editor):
    apps.get_model("auth", "User").objects.filter(is_staff=False).update(email="")


class Migration(migrations.Migration):
    dependencies = [("separations", "0014_folded_names")]
    operations = [migrations.RunPython(forget_unconfirmed, migrations.RunPython.noop)]

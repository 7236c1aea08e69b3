"""What gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from stemsite import sentry

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stemsite.settings")
application = get_wsgi_application()
sentry.start()

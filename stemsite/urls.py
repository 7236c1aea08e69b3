"""The site's URL patterns."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("separations.urls")),
    path("account/", include("separations.accounts.urls")),
    path("api/", include("separations.api.urls")),
    path("admin/control/", include("separations.admin.control_room.urls")),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
]
handler400 = "separations.web.views.errors.bad_request"
handler404 = "separations.web.views.errors.not_found"
handler500 = "separations.web.views.errors.broken"

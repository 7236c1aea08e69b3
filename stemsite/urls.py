"""Every address of the site."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("separations.urls")),
    path("account/", include("separations.account_urls")),
    path("api/", include("separations.api.urls")),
    path("admin/control/", include("separations.control_urls")),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
]
handler400 = "separations.views.bad_request"
handler404 = "separations.views.not_found"
handler500 = "separations.views.broken"

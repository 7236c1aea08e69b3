"""Addresses of the control room, within the admin."""

from django.urls import path

from separations.admin.control_room import views

app_name = "control"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("switch", views.switch, name="switch"),
    path("live", views.live, name="live"),
    path("day", views.day, name="day"),
    path("waste", views.waste, name="waste"),
    path("pause", views.pause, name="pause"),
    path("resume", views.resume, name="resume"),
    path("clean", views.clean, name="clean"),
]

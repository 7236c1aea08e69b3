"""The addresses of pages, partials, players and downloads."""

from django.urls import path, register_converter

from separations import access, account_views, views

register_converter(access.SongConverter, "song")

app_name = "separations"
# `<song:song>` is songs/ID, for its owner, as well as s/TOKEN, for who has a link to it. All that
# changes a song, or names other songs of its owner, is under songs/ID alone.
urlpatterns = [
    path("", views.home, name="home"),
    path("demo", views.demo, name="demo"),
    path("about", views.about, name="about"),
    path("mine/delete", account_views.delete_everything, name="delete_everything"),
    path("<song:song>", views.job_page, name="job"),
    path("<song:song>/status", views.job_status, name="status"),
    path("songs/<uuid:job_id>/card", views.job_card, name="card"),
    path("songs/<uuid:job_id>/cancel", views.cancel, name="cancel"),
    path("songs/<uuid:job_id>/retry", views.retry, name="retry"),
    path("songs/<uuid:job_id>/again", views.again, name="again"),
    path("songs/<uuid:job_id>/delete", views.delete, name="delete"),
    path("songs/<uuid:job_id>/links", views.share, name="share"),
    path("songs/<uuid:job_id>/links/<uuid:link_id>/revoke", views.revoke, name="revoke"),
    path("<song:song>/stems/<slug:stem>", views.stem, name="stem"),
    path("<song:song>/stems/<slug:stem>/chunks/<int:index>", views.chunk, name="chunk"),
    path("<song:song>/stems/<slug:stem>/peaks", views.peaks, name="peaks"),
    path("<song:song>/mix", views.mix, name="mix"),
    path("<song:song>/mix/level", views.mix_level, name="mix_level"),
    path("<song:song>/archive", views.archive, name="archive"),
]

"""URL patterns of pages, partials, playback and downloads."""

from django.urls import path, register_converter

from separations.access import permissions
from separations.accounts import views as account_views
from separations.web.views import about, downloads, home, player, sharing, song

register_converter(permissions.SongConverter, "song")

app_name = "separations"
# `<song:song>` matches songs/ID, for its owner, and s/TOKEN, for visitors with a share link. What
# changes a song, or names other songs of its owner, is under songs/ID only.
urlpatterns = [
    path("", home.home, name="home"),
    path("demo", home.demo, name="demo"),
    path("about", about.about, name="about"),
    path("mine/delete", account_views.delete_everything, name="delete_everything"),
    path("<song:song>", song.job_page, name="job"),
    path("<song:song>/status", song.job_status, name="status"),
    path("<song:song>/cover", downloads.cover, name="cover"),
    path("songs/<uuid:job_id>/card", song.job_card, name="card"),
    path("songs/<uuid:job_id>/cancel", song.cancel, name="cancel"),
    path("songs/<uuid:job_id>/retry", song.retry, name="retry"),
    path("songs/<uuid:job_id>/again", song.again, name="again"),
    path("songs/<uuid:job_id>/delete", song.delete, name="delete"),
    path("songs/<uuid:job_id>/links", sharing.share, name="share"),
    path("songs/<uuid:job_id>/links/<uuid:link_id>/revoke", sharing.revoke, name="revoke"),
    path("<song:song>/stems/<slug:stem>", downloads.stem, name="stem"),
    path("<song:song>/stems/<slug:stem>/chunks/<int:index>", player.chunk, name="chunk"),
    path("<song:song>/stems/<slug:stem>/peaks", player.peaks, name="peaks"),
    path("<song:song>/mix", downloads.mix, name="mix"),
    path("<song:song>/mix/level", downloads.mix_level, name="mix_level"),
    path("<song:song>/archive", downloads.archive, name="archive"),
]

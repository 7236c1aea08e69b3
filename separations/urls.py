"""The addresses of pages, partials, players and downloads."""

from django.urls import path

from separations import views

app_name = "separations"
urlpatterns = [
    path("", views.home, name="home"),
    path("demo", views.demo, name="demo"),
    path("about", views.about, name="about"),
    path("songs/<uuid:job_id>", views.job_page, name="job"),
    path("songs/<uuid:job_id>/status", views.job_status, name="status"),
    path("songs/<uuid:job_id>/card", views.job_card, name="card"),
    path("songs/<uuid:job_id>/cancel", views.cancel, name="cancel"),
    path("songs/<uuid:job_id>/retry", views.retry, name="retry"),
    path("songs/<uuid:job_id>/again", views.again, name="again"),
    path("songs/<uuid:job_id>/delete", views.delete, name="delete"),
    path("songs/<uuid:job_id>/stems/<slug:stem>", views.stem, name="stem"),
    path("songs/<uuid:job_id>/stems/<slug:stem>/chunks/<int:index>", views.chunk, name="chunk"),
    path("songs/<uuid:job_id>/stems/<slug:stem>/peaks", views.peaks, name="peaks"),
    path("songs/<uuid:job_id>/mix", views.mix, name="mix"),
    path("songs/<uuid:job_id>/mix/level", views.mix_level, name="mix_level"),
    path("songs/<uuid:job_id>/archive", views.archive, name="archive"),
]

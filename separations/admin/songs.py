"""Uploads, stems and share links in the admin."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from separations.admin.base import IndexedFilter, NoDeletion, QuickAdmin
from separations.admin.jobs import job_link, song_link
from separations.admin.search import HEX, jobs_with_words, songs_with_hash, songs_with_words
from separations.models import Job, ShareLink, Stem, Upload
from separations.web.number_format import lasting, size


class CodecFilter(IndexedFilter):
    model, parameter_name, title = Upload, "codec", _("codec")


class StemNameFilter(IndexedFilter):
    model, parameter_name, title = Stem, "name", _("name")


@admin.register(Upload)
class UploadAdmin(NoDeletion, QuickAdmin[Upload]):
    """An upload is deleted with the last of its jobs."""

    list_display = (
        "title",
        "page",
        "artist",
        "album",
        "length",
        "codec",
        "sample_rate",
        "channels",
        "on_disk",
        "created_at",
    )
    list_filter = (CodecFilter, "created_at")
    search_fields = ("title",)  # brings the box; see `get_search_results`
    search_help_text = _("Title, artist, file name, or the beginning of the samples' hash")
    date_hierarchy = "created_at"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        newest = Job.objects.filter(upload=OuterRef("pk")).order_by("-created_at")
        return super().get_queryset(request).annotate(song=Subquery(newest.values("pk")[:1]))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Upload], search_term: str
    ) -> tuple[QuerySet[Upload], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        found = Q(pk__in=songs_with_words(text))
        if HEX.fullmatch(text.lower()):
            found |= Q(pk__in=songs_with_hash(text.lower()))
        return queryset.filter(found), False

    @admin.display(description=_("length"))
    def length(self, upload: Upload) -> str:
        return lasting(upload.seconds)

    @admin.display(description=_("page"))
    def page(self, upload: Any) -> SafeString:
        return song_link(upload.song)

    @admin.display(description=_("size"))
    def on_disk(self, upload: Upload) -> str:
        return size(upload.bytes)


@admin.register(Stem)
class StemAdmin(NoDeletion, QuickAdmin[Stem]):
    list_display = ("name", "of", "peak", "loudness", "page")
    list_filter = (StemNameFilter,)
    search_fields = ("name",)  # brings the box; see `get_search_results`
    search_help_text = _("Title, artist or file name of the song")
    list_select_related = ("job__upload",)
    ordering = ("-pk",)
    sortable_by = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Stem], search_term: str
    ) -> tuple[QuerySet[Stem], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        found = Job.objects.order_by().filter(upload__in=songs_with_words(text))
        return queryset.filter(job__in=found.values("pk")), False

    @admin.display(description=_("job"))
    def of(self, stem: Stem) -> SafeString:
        return job_link(stem.job)

    @admin.display(description=_("page"))
    def page(self, stem: Stem) -> SafeString:
        return song_link(stem.job_id)


@admin.register(ShareLink)
class ShareLinkAdmin(QuickAdmin[ShareLink]):
    """Deleting a link ends it."""

    list_display = ("of", "created_at", "expires_at", "revoked_at", "page")
    list_filter = ("created_at",)
    search_fields = ("job__upload__title",)  # brings the box; see `get_search_results`
    search_help_text = _("Title, artist or file name of the song, or its account")
    list_select_related = ("job__upload",)
    exclude = ("token_hash",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ShareLink], search_term: str
    ) -> tuple[QuerySet[ShareLink], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        found = Job.objects.order_by().filter(jobs_with_words(text))
        return queryset.filter(job__in=found.values("pk")), False

    @admin.display(description=_("job"))
    def of(self, link: ShareLink) -> str:
        return str(link.job)

    @admin.display(description=_("page"))
    def page(self, link: ShareLink) -> SafeString:
        return song_link(link.job_id)

"""Lists that stay quick however many rows there are: nothing counts, sorts or looks at all of them.

What a list filters and sorts by has an index; see `Meta.indexes` of the models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar, TypeVar, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connection, models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.translation import gettext

Row = TypeVar("Row", bound=models.Model)
COUNTED = 5000  # rows that a list goes up to; who looks for older ones narrows it down


class BoundedPaginator(Paginator[Any]):
    """Counts up to COUNTED rows and no further."""

    @cached_property
    def counted(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list).order_by().values("pk")
        return int(rows[: COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(COUNTED, self.counted)

    @property
    def is_cut(self) -> bool:
        """Whether there are rows that are on none of the pages."""
        return self.counted > COUNTED


@dataclass(frozen=True)
class Link:
    href: str
    title: str


class QuickChangeList(ChangeList):
    paginator: BoundedPaginator

    @property
    def counted(self) -> int:
        return COUNTED

    def get_ordering_field(self, field_name: Any) -> Any:
        """Columns that `sortable_by` does not name are not sorted by, whatever the address says."""
        if self.sortable_by is not None and field_name not in self.sortable_by:
            return None
        return super().get_ordering_field(field_name)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        ordering = super().get_ordering(request, queryset)
        if ordering == ["-pk"]:  # what the address asked for was left out
            return self._get_deterministic_ordering(self._get_default_ordering())  # type: ignore[attr-defined]
        return ordering

    # Django's own way down from years to days looks at every row, on SQLite by Python functions.

    @property
    def dates(self) -> list[Link]:
        """One step down from what is shown: years, months, days from the first row to the last."""
        field = self.date_hierarchy
        span = self._span()
        if span is None:
            return []
        year, month, day = (self._chosen(part) for part in ("year", "month", "day"))
        if day:
            return []
        if month and year:
            steps = _days(span, year, month)
        elif year:
            steps = _months(span, year)
        else:
            steps = [({"year": each}, str(each)) for each in range(span[0].year, span[1].year + 1)]
        return [
            Link(
                self.get_query_string(
                    {f"{field}__{part}": value for part, value in values.items()}, [f"{field}__"]
                ),
                title,
            )
            for values, title in steps
        ]

    @property
    def back(self) -> Link | None:
        """One step up, or None at the top."""
        field = self.date_hierarchy
        year, month, day = (self._chosen(part) for part in ("year", "month", "day"))
        if not year:
            return None
        above: dict[str, int] = {}
        title = gettext("All years")
        if month:
            above, title = {f"{field}__year": year}, str(year)
        if month and day:
            above[f"{field}__month"] = month
            title = _name(date(year, month, 1), "YEAR_MONTH")
        return Link(self.get_query_string(above, [f"{field}__"]), title)

    def _chosen(self, part: str) -> int | None:
        text = self.params.get(f"{self.date_hierarchy}__{part}", "")
        return int(text) if str(text).isdecimal() else None

    def _span(self) -> tuple[date, date] | None:
        """The days of the first and the last row; by one step into the index each."""
        times = self.root_queryset.order_by().values_list(self.date_hierarchy, flat=True)
        first = times.order_by(self.date_hierarchy).first()
        last = times.order_by(f"-{self.date_hierarchy}").first()
        if first is None or last is None:
            return None
        return _day(first), _day(last)


def _day(time: datetime) -> date:
    return timezone.localtime(time).date()


def _name(day: date, kind: str) -> str:
    return date_format(day, f"{kind}_FORMAT")


Step = tuple[dict[str, int], str]


def _months(span: tuple[date, date], year: int) -> list[Step]:
    def within(month: int) -> bool:
        return (span[0].year, span[0].month) <= (year, month) <= (span[1].year, span[1].month)

    return [
        ({"year": year, "month": month}, _name(date(year, month, 1), "YEAR_MONTH"))
        for month in range(1, 13)
        if within(month)
    ]


def _days(span: tuple[date, date], year: int, month: int) -> list[Step]:
    def within() -> Iterator[int]:
        for day in range(1, 32):
            try:
                if span[0] <= date(year, month, day) <= span[1]:
                    yield day
            except ValueError:
                return

    return [
        ({"year": year, "month": month, "day": day}, _name(date(year, month, day), "MONTH_DAY"))
        for day in within()
    ]


class QuickAdmin(admin.ModelAdmin[Row]):
    """Rows are written by the services alone, and listed without counting them all."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    sortable_by: ClassVar[list[str] | tuple[str, ...] | None] = ("created_at",)

    class Media:
        css = {"all": ("css/control.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QuickChangeList

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *where: Any) -> Any:
        """What the list has no room for, "select all" does not mean either: nobody saw it."""
        across = request.POST.get("select_across") == "1"
        if across and BoundedPaginator(queryset, 1).is_cut:
            text = gettext("More than %(count)d rows are too many at once. Narrow the list down.")
            self.message_user(request, text % {"count": COUNTED}, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *where)


class Undeletable:
    """Rows that go with others."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class IndexedFilter(admin.SimpleListFilter):
    """Filters by the values that a column has, taken from its index one by one."""

    model: type[models.Model]
    parameter_name: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value in values_of(self.model, self.parameter_name)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Row]) -> QuerySet[Row]:
        value = self.value()
        if not value:
            return queryset
        if "\x00" in value:  # which PostgreSQL refuses to look for
            return queryset.none()
        return queryset.filter(**{self.parameter_name: value})


def values_of(model: type[models.Model], field: str) -> list[str]:
    """The values of an indexed column but for "", by as many steps into the index as there are.

    DISTINCT would read the whole index.
    """
    quote = connection.ops.quote_name
    _name, named = model._meta.get_field(field).get_attname_column()  # type: ignore[union-attr]
    table, column = quote(model._meta.db_table), quote(str(named))
    sql = f"""
        WITH RECURSIVE found(value) AS (
            SELECT MIN({column}) FROM {table} WHERE {column} > ''
            UNION ALL
            SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > found.value)
            FROM found WHERE found.value IS NOT NULL
        )
        SELECT value FROM found WHERE value IS NOT NULL
    """  # noqa: S608 - names of our own models
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [value for (value,) in cursor.fetchall()]

"""Admin lists that stay fast with millions of rows: nothing counts, sorts or reads all of them.

Filters and orderings have indexes: see `Meta.indexes` of the models.
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

from separations.admin.lookups import OfferedLookups

Row = TypeVar("Row", bound=models.Model)
MAX_COUNTED = 5000  # rows that a list shows at most; filters and search reach the others


class BoundedPaginator(Paginator[Any]):
    """Counts up to COUNTED rows and no further."""

    @cached_property
    def counted(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list).order_by().values("pk")
        return int(rows[: MAX_COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(MAX_COUNTED, self.counted)

    @property
    def is_cut(self) -> bool:
        """Whether some rows are on no page."""
        return self.counted > MAX_COUNTED


@dataclass(frozen=True)
class Link:
    href: str
    title: str


class QuickChangeList(ChangeList):
    paginator: BoundedPaginator

    @property
    def counted(self) -> int:
        return MAX_COUNTED

    def get_ordering_field(self, field_name: Any) -> Any:
        """Only the columns in `sortable_by`, whatever the address asks for."""
        if self.sortable_by is not None and field_name not in self.sortable_by:
            return None
        return super().get_ordering_field(field_name)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        ordering = super().get_ordering(request, queryset)
        if ordering == ["-pk"]:  # the address asked for no allowed column
            return self._get_deterministic_ordering(self._get_default_ordering())  # type: ignore[attr-defined]
        return ordering

    # Django's own date hierarchy reads every row, on SQLite by Python functions.

    @property
    def dates(self) -> list[Link]:
        """Links one step down: years, months or days from the first row to the last."""
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
        """A link one step up, or None at the top."""
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
        """The days of the first and the last row, each by one step into the index."""
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


class QuickAdmin(OfferedLookups[Row]):
    """A read-only list that does not count all rows; services alone write them."""

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
        """Refuse "select all" for more rows than the list can show."""
        across = request.POST.get("select_across") == "1"
        if across and BoundedPaginator(queryset, 1).is_cut:
            text = gettext("More than %(count)d rows are too many at once. Narrow the list down.")
            self.message_user(request, text % {"count": MAX_COUNTED}, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        return super().response_action(request, queryset, *where)


class NoDeletion:
    """Rows that are deleted with others only."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class IndexedFilter(admin.SimpleListFilter):
    """Filters by the distinct values of an indexed column."""

    model: type[models.Model]
    parameter_name: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, value) for value in distinct_values(self.model, self.parameter_name)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Row]) -> QuerySet[Row]:
        value = self.value()
        if not value:
            return queryset
        if "\x00" in value:  # which PostgreSQL refuses
            return queryset.none()
        return queryset.filter(**{self.parameter_name: value})


def distinct_values(model: type[models.Model], field: str) -> list[str]:
    """The distinct values of an indexed column without "", by one index step each.

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

"""Restricts the filters of admin lists to those they offer.

Django lets users of a list filter it by any field with any comparison
(`?user__password__startswith=…`, `?visitor__regex=…`), and so read hidden fields character by
character.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from django.contrib.admin import FieldListFilter, ModelAdmin, SimpleListFilter
from django.contrib.admin.utils import get_fields_from_path
from django.db.models import Model
from django.http import HttpRequest

Row = TypeVar("Row", bound=Model)


YEAR = re.compile("[1-9][0-9]{3}")


class OfferedLookups(ModelAdmin[Row]):
    """Refuses (400) every lookup that is none of its filters, its dates or `own_lookups`.

    own_lookups: those that links elsewhere use.
    """

    own_lookups: ClassVar[tuple[str, ...]] = ()

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        if lookup.endswith("__year") and not YEAR.fullmatch(str(value)):
            return False  # databases fail on other years, each in its own way
        return lookup in self._offered(request or HttpRequest())

    def _offered(self, request: HttpRequest) -> set[str]:
        dates = [f"{self.date_hierarchy}__{part}" for part in ("year", "month", "day")]
        return {
            *self.own_lookups,
            *(dates if self.date_hierarchy else ()),
            *(name for item in self.get_list_filter(request) for name in self._of(item, request)),
        }

    def _of(self, item: Any, request: HttpRequest) -> Iterator[str]:
        """The query parameters of a filter."""
        if isinstance(item, type) and issubclass(item, SimpleListFilter):
            yield str(item.parameter_name)
            return
        path, kind = item if isinstance(item, tuple) else (item, FieldListFilter.create)
        field = get_fields_from_path(self.model, path)[-1]
        made = kind(field, request, {}, self.model, self, field_path=path)
        yield from (name for name in made.expected_parameters() if name)

"""What the code uses of other packages that their makers do not document: pinned by version.

A new version may change any of it without a word. So each use stands in the table below with the
version that it was checked against; a new use, or another version in the lock files, fails here.
"""

import ast
import re
from dataclasses import dataclass

import pytest

from stemsite.setup.dependencies import LOCKS, locked
from tests.support.private_uses import Module, found_in, modules
from tests.support.sounds import ROOT


@dataclass(frozen=True)
class Use:
    """What is used of a package, where, and what to check before its version goes up."""

    package: str  # as the lock files name it, or "python"
    version: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    check: str


USES = (
    Use(
        "gunicorn",
        "27.0.1",
        ("stemsite/server/gunicorn_worker.py",),
        ("gunicorn.workers.gthread", "Worker._keepalive_after"),
        "Compare gunicorn/workers/gthread.py with what Worker and Connection override and call; "
        "run test_connections, test_slow_clients, test_request_reader and test_stopping.",
    ),
    Use(
        "huey",
        "3.5.4",
        ("stemsite/signed_queue.py",),
        ("SignedHuey._check_revoked", "SignedHuey._deserialize_all"),
        "Look in huey/api.py for what else unpickles (deserialize); run test_signed_queue.",
    ),
    Use(
        "huey",
        "3.5.4",
        ("stemsite/signed_queue.py",),
        ("sys.modules",),
        "huey/storage.py still does without redis and psycopg; run test_running_site (memory).",
    ),
    Use(
        "huey",
        "3.5.4",
        ("separations/management/commands/run_consumer.py",),
        ("SiteConsumer._handle_signal",),
        "Compare Consumer.run and its signal handlers; run test_running_site.",
    ),
    Use(
        "django",
        "5.2.19",
        ("stemsite/wsgi.py",),
        ("Request._load_post_and_files", "Request._set_content_type_params"),
        "Compare django/http/request.py: who else reads charset or forms? Run test_wsgi.",
    ),
    Use(
        "django",
        "5.2.19",
        ("separations/monitoring/middleware.py", "separations/fair_use/middleware.py"),
        ("_resource_closers",),
        "HttpResponseBase.close still calls each of them; run test_metrics and test_rate_limits.",
    ),
    Use(
        "django",
        "5.2.19",
        (
            *("separations/fair_use/middleware.py", "separations/fair_use/refusals.py"),
            *("separations/monitoring/middleware.py", "separations/api/urls.py"),
        ),
        ("_has_been_logged",),
        "django/utils/log.py, log_response, still leaves such answers out; run test_logs.",
    ),
    Use(
        "django",
        "5.2.19",
        ("stemsite/static_files.py",),
        ("ModuleStorage._save",),
        "Documented for storages of one's own: HashedFilesMixin and ManifestFilesMixin still write "
        "all files by it; run test_static.",
    ),
    Use(
        "django",
        "5.2.19",
        ("separations/admin/base.py",),
        ("_get_default_ordering", "_get_deterministic_ordering"),
        "Compare ChangeList.get_ordering; run test_admin_lists.",
    ),
    Use(
        "django",
        "5.2.19",
        ("tests/admin/test_admin_lists.py", "tests/admin/test_admin_lookups.py"),
        ("_registry",),
        "In tests alone: the admin's classes by their models.",
    ),
    Use(
        "huey",
        "3.5.4",
        ("tests/project/test_stored_data.py",),
        ("_registry",),
        "In tests alone: the tasks by their names in messages.",
    ),
    Use(
        "demucs",
        "4.1.0",
        ("separations/engine/inference/graph.py", "tests/engine/test_graph.py"),
        ("_ispec", "_magnitude", "_spec"),
        "HTDemucs.forward still goes through them; run test_graph, and test_real_weights with the "
        "weights there.",
    ),
    Use(
        "demucs",
        "4.1.0",
        ("separations/engine/inference/graph.py",),
        ("_mask",),
        "As above.",
    ),
    Use(
        "demucs",
        "4.1.0",
        ("tests/bench/baseline.py",),
        ("demucs.api.get_model",),
        "In the benchmark alone: Separator still calls it to load a model; run make bench.",
    ),
    Use(
        "openvino",
        "2026.4.1",
        ("separations/engine/inference/quiet_openvino.py",),
        ("sys.modules",),
        "OpenVINO still does without openvino_telemetry, and tells nobody by another way; run "
        "test_engine_choice.",
    ),
    Use(
        "prometheus-client",
        "0.26.0",
        ("separations/monitoring/registry.py",),
        ("prometheus_client.values", "prometheus_client.values.ValueClass"),
        "Metrics still make their values by values.ValueClass, and look for the folder in "
        "PROMETHEUS_MULTIPROC_DIR when they do; run test_metrics.",
    ),
    Use(
        "prometheus-client",
        "0.26.0",
        ("separations/monitoring/multiprocess.py",),
        ("prometheus_client.mmap_dict",),
        "The names and the format of the mapped files; run test_metrics.",
    ),
    Use(
        "schemathesis",
        "4.32.5",
        ("tests/support/schemathesis_hooks.py",),
        ("_SIGNATURES", "schemathesis.core.file_samples"),
        "In tests alone: how it names files that it sends; run test_api_live.",
    ),
    Use(
        "python",
        ">=3.11",
        ("tests/stemsite/test_stopping.py",),
        (
            "_adjust_thread_count",
            "concurrent.futures.ThreadPoolExecutor._adjust_thread_count",
        ),
        "In tests alone: where a pool holds its lock; run test_stopping on each Python.",
    ),
)


def test_every_use_of_a_private_interface_is_in_the_table() -> None:
    table = {(file, name) for use in USES for file in use.files for name in use.names}
    found = found_in(modules())
    assert found - table == set(), "new: avoid it, or pin it with what to check on an upgrade"
    assert table - found == set(), "no longer used"


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.package}-{use.names[-1]}")
def test_private_interfaces_are_of_the_version_that_was_checked(use: Use) -> None:
    if use.package == "python":
        there = re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())
        assert there is not None
        assert there[1] == use.version, use.check
        return
    in_tests_alone = all(file.startswith("tests/") for file in use.files)
    versions = {locked(lock).get(use.package) for lock in LOCKS[in_tests_alone:]}
    assert versions == {use.version}, f"{use.package}, {', '.join(use.names)}: {use.check}"


SAMPLE = """
import sys
from gunicorn.workers import gthread
from logging import _checkLevel
from wsgiref.handlers import SimpleHandler
import http.client

class Mine(gthread.ThreadWorker):
    def _keepalive_after(self, conn, keepalive): pass
    def _own(self): self._held_by_me = 1

class Further(Mine):
    def _wrap_socket(self): pass

def f(answer):
    answer._closers.append(1)
    http.client._MAXLINE = 1
    http.client.HTTPConnection.debuglevel = 1
    sys.modules["x"] = None
    return answer._meta
"""


def test_all_kinds_of_use_are_found() -> None:
    assert {name for _, name in found_in([Module("stemsite/x.py", ast.parse(SAMPLE))])} == {
        "gunicorn.workers.gthread",
        "Mine._keepalive_after",
        "_checkLevel",
        "_closers",
        "_MAXLINE",
        "http.client._MAXLINE",
        "http.client.HTTPConnection.debuglevel",
        "sys.modules",
    }

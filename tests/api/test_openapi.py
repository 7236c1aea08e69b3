"""The API's description: what linters say of it, and what generated clients need."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from separations.api import descriptions, named_values, schemas
from separations.errors import user_messages
from separations.webhooks import events
from tests.support import generated_clients

PROBLEM = "application/problem+json"
BINARY = {"type": "string", "format": "binary"}
# Generated clients name their functions after these.
OPERATIONS = {
    "createSeparation": ("post", "/api/separate"),
    "getSeparation": ("get", "/api/separate/{task_id}"),
    "deleteSeparation": ("delete", "/api/separate/{task_id}"),
    "cancelSeparation": ("post", "/api/separate/{task_id}/cancel"),
    "retrySeparation": ("post", "/api/separate/{task_id}/retry"),
    "followSeparation": ("get", "/api/separate/{task_id}/progress"),
    "downloadStem": ("get", "/api/separate/{task_id}/stems/{stem_name}"),
    "downloadMix": ("get", "/api/separate/{task_id}/mixdown"),
    "downloadArchive": ("get", "/api/separate/{task_id}/archive"),
    "downloadCover": ("get", "/api/separate/{task_id}/cover"),
    "listJobs": ("get", "/api/jobs"),
    "listModels": ("get", "/api/models"),
    "getLimits": ("get", "/api/limits"),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("description")
    return generated_clients.write_description(folder / "openapi.json")


@pytest.fixture(scope="module")
def described(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each operation by its id."""
    return {
        operation["operationId"]: {**operation, "at": (method, path)}
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


def parts(part: Any) -> Iterator[dict[str, Any]]:
    """All objects of a description."""
    if isinstance(part, dict):
        yield part
        for each in part.values():
            yield from parts(each)
    elif isinstance(part, list):
        for each in part:
            yield from parts(each)


def test_spectral_finds_nothing(path: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text('extends: ["spectral:oas"]\n')
    spectral = "node_modules/@stoplight/spectral-cli/dist/index.js"
    done = generated_clients.run_node(spectral, "lint", path, "-r", rules, "--fail-severity=hint")
    assert done.returncode == 0, done.stdout


def test_redocly_finds_nothing(path: Path) -> None:
    redocly = "node_modules/@redocly/cli/bin/cli.js"
    done = generated_clients.run_node(redocly, "lint", path, "--format=json")
    assert json.loads(done.stdout)["problems"] == [], done.stdout


def test_operation_ids_stay_wherever_the_code_moves(described: dict[str, Any]) -> None:
    found = {name: each["at"] for name, each in operations(described).items()}
    assert found == OPERATIONS
    assert described["openapi"] == "3.1.0"
    assert described["webhooks"]["separation"]["post"]["operationId"] == "separationEnded"


def test_everything_is_described(described: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in described["tags"] if tag["description"]}
    webhook = described["webhooks"]["separation"]["post"]
    for operation in (*operations(described).values(), webhook):
        assert operation["summary"]
        assert operation["description"]
        assert set(operation["tags"]) <= tags
        for parameter in operation["parameters"]:
            assert parameter["description"], parameter
        for status, answer in operation["responses"].items():
            assert len(answer["description"]) > len("Created"), (operation["operationId"], status)
    for name, schema in described["components"]["schemas"].items():
        assert schema["description"], name
    for header in described["components"]["headers"].values():
        assert header["description"]


def test_errors_are_problems_and_say_when_to_come_again(described: dict[str, Any]) -> None:
    for operation in operations(described).values():
        for status, answer in operation["responses"].items():
            assert {"X-Request-ID", "RateLimit", "RateLimit-Policy"} <= set(answer["headers"])
            if int(status) >= 400:
                assert list(answer["content"]) == [PROBLEM]
            if status in ("429", "503"):
                assert "Retry-After" in answer["headers"]
            if status == "401":
                assert "WWW-Authenticate" in answer["headers"]
    for name, statuses in {"createSeparation": ("201", "202"), "retrySeparation": ("202",)}.items():
        for status in statuses:
            assert "Location" in operations(described)[name]["responses"][status]["headers"]


def test_downloads_are_binary_and_events_are_text(described: dict[str, Any]) -> None:
    found = operations(described)
    for name in ("downloadStem", "downloadMix", "downloadArchive", "downloadCover"):
        for status in ("200", "206"):
            content = found[name]["responses"][status]["content"]
            assert [each["schema"] for each in content.values()] == [BINARY] * len(content)
            assert "application/octet-stream" in content, "some generators know no other bytes"
        assert {"ETag", "Content-Disposition"} <= set(found[name]["responses"]["200"]["headers"])
    stream = found["followSeparation"]["responses"]["200"]["content"]["text/event-stream"]
    assert stream["schema"]["type"] == "string"
    assert stream["schema"]["contentSchema"] == {"$ref": "#/components/schemas/Progress"}


def test_each_list_of_values_has_one_name(described: dict[str, Any]) -> None:
    components = described["components"]["schemas"]
    for name, values in named_values.VALUES.items():
        assert components[name]["enum"] == values
        holders = [each for each in parts(described) if each.get("enum") == values]
        assert holders == [components[name]], name
    referred = {each["$ref"] for each in parts(described) if "$ref" in each}
    assert {f"#/components/schemas/{name}" for name in named_values.VALUES} <= referred
    # A generated client must not refuse a code that is newer than itself.
    code = components["Problem"]["properties"]["code"]["$ref"].rpartition("/")[2]
    assert {"type": "string"} in components[code]["anyOf"]


def test_codes_stages_and_states_are_those_that_there_are(described: dict[str, Any]) -> None:
    components = described["components"]["schemas"]
    assert components["FaultCode"]["enum"] == sorted(user_messages.FAULTS)
    assert set(components["Status"]["enum"]) == set(events.STATUS.values())
    assert {"wait", "separate", "paused", "no_consumer"} <= set(components["Stage"]["enum"])


def test_a_form_and_parameters_are_never_null(described: dict[str, Any]) -> None:
    form = described["components"]["schemas"]["SeparationRequest"]
    assert form["required"] == ["file"]
    asked = [each["parameters"] for each in operations(described).values()]
    assert '"null"' not in json.dumps([form, asked])


def test_trying_it_out_needs_no_value_but_the_file(described: dict[str, Any]) -> None:
    """The page to try it fills in "string" and the lowest number where nothing better is said."""
    form = described["components"]["schemas"]["SeparationRequest"]["properties"]
    said = {name for name, each in form.items() if "default" in each or "examples" in each}
    assert said == set(form) - {"file"}
    schemas.Asked.model_validate(
        {n: each.get("default", *each.get("examples", ())) for n, each in form.items() if n in said}
    )


def test_examples_are_as_they_are_described() -> None:
    for name, example in descriptions.SCHEMA_EXAMPLES.items():
        getattr(schemas, name).model_validate(example, extra="forbid")

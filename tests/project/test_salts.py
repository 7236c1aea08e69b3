"""Every string that something stored or handed out is signed or hashed with.

They look like names of modules, and some were once. They are data: where one changes, each token,
link, cookie or count that was made with it is lost. So they stay as they are, whatever the code
around them is called. A new one gets a line here, and an example in `tests/test_stored_data.py`.
"""

import ast
import itertools
from collections.abc import Iterator

import pytest
from django.conf import settings

from tests.support.sounds import ROOT

# A call by its name, then its salt and the beginnings of what is hashed: {} is what differs.
Use = tuple[str, ...]
SALTS: set[Use] = {
    # Share links; webhook secrets, of an account or of a visitor.
    ("salted_hmac", "separations.sharing", "{}"),
    ("salted_hmac", "separations.webhooks", "{}"),
    ("digest", "{}.{}.{}"),  # what a receiver checks: https://www.standardwebhooks.com
    # Requests with an Idempotency-Key, and who sends one without a token.
    ("salted_hmac", "separations.intake", "{} {}"),
    ("salted_hmac", "separations.newcomer", "{} {}"),
    # Tokens of visitors; links that confirm an address; messages in the queue.
    ("TimestampSigner", "separations.askers"),
    ("dumps", "separations.mails.confirm"),
    ("loads", "separations.mails.confirm"),
    ("salted_hmac", "separations.mails.confirm", "{} {} {} {} {}"),
    ("dumps", "stemsite.queue"),
    ("loads", "stemsite.queue"),
    # Cookies: Django signs with the cookie's name and the salt together.
    ("set_signed_cookie", "visitor", ""),
    ("get_signed_cookie", "visitor", ""),
    ("set_signed_cookie", "known", "known"),
    ("get_signed_cookie", "known", "known"),
    # Names and addresses that are kept as hashes.
    ("salted_hmac", "separations.buckets", "{}"),
    ("name_hash", "{}:{}"),
    ("name_hash", "account {}"),
    ("name_hash", "decoder {}"),
    ("name_hash", "incoming {}"),
    ("name_hash", "mails asked from {}"),
    ("name_hash", "network {}"),
}
# What is counted, and for whom: the two halves of "{}:{}" above. Kinds that stand for a setting are
# the names of its limits.
COUNTS: set[Use] = {
    ("Withdrawal", "{}", "client {}"),
    ("Withdrawal", "{}", "user {}"),
    ("Withdrawal", "{}", "visitor {}"),
    ("Withdrawal", "{}", "site"),
    ("Withdrawal", "known", "{}"),
    ("Withdrawal", "mails of", "the site"),
    ("Withdrawal", "mails of", "the site to strangers"),
    ("Withdrawal", "mails to", "{}"),
    ("Withdrawal", "mails to", "{} from {}"),
    ("Withdrawal", "name", "{}"),
    ("Withdrawal", "questions to", "{}"),
    ("Withdrawal", "spare", "{}"),
    ("Withdrawal", "spare", "{} {}"),
    ("of_client", "storage"),
    ("of_client", "upload"),
    ("of_client", "{}"),
}
POSITIONAL = {"salted_hmac": 2, "name_hash": 1, "Withdrawal": 2, "of_client": 1}
COOKIES = ("set_signed_cookie", "get_signed_cookie")
SIGNERS = ("Signer", "TimestampSigner", "sign_object", "unsign_object")
SALTED = ("salt", "key_salt", "person")


class Source:
    """A file's calls, and what its names stand for."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self.module = _assigned(self.tree.body)

    def uses(self) -> Iterator[Use]:
        for scope, call in self._calls(self.tree, {}):
            yield from self._uses(call, scope)

    def _calls(
        self, node: ast.AST, scope: dict[str, list[ast.expr]]
    ) -> Iterator[tuple[dict[str, list[ast.expr]], ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                parameters = [
                    each.arg for each in ast.walk(child.args) if isinstance(each, ast.arg)
                ]
                unknown: dict[str, list[ast.expr]] = {name: [] for name in parameters}
                inner = {**scope, **unknown, **_assigned(list(ast.walk(child)))}
            if isinstance(child, ast.Call):
                yield inner, child
            yield from self._calls(child, inner)

    def _uses(self, call: ast.Call, scope: dict[str, list[ast.expr]]) -> Iterator[Use]:
        name = _name(call.func)
        salts = {each.arg: each.value for each in call.keywords if each.arg in SALTED}
        if name in POSITIONAL:
            parts: list[ast.expr] = call.args[: POSITIONAL[name]]
        elif name in COOKIES:
            parts = [call.args[0], salts.get("salt", ast.Constant(""))]
        elif salts or name in SIGNERS or _is_of_signing(call.func):
            parts = list(salts.values())
        elif name in ("new", "digest") and _owner(call.func) == "hmac":
            parts = call.args[1:2]
        elif _owner(call.func) == "hashlib" and call.args:
            parts = call.args[:1]
        else:
            return
        templates = itertools.product(*(self._templates(each, scope) for each in parts))
        found = {(name, *each) for each in templates}
        if name in POSITIONAL or name in COOKIES or salts or name in SIGNERS:
            yield from found
        else:  # plain hashes have no salt; one that begins with words of ours has
            yield from (use for use in found if use[1:] != ("{}",) or _is_of_signing(call.func))

    def _templates(self, node: ast.expr, scope: dict[str, list[ast.expr]]) -> set[str]:
        """What a text may be, with {} for each part that is not written in the source."""
        if isinstance(node, ast.Constant):
            return {str(node.value)}
        if isinstance(node, ast.JoinedStr):
            whole = "".join(
                str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values
            )
            return {whole}
        if isinstance(node, ast.IfExp):
            return self._templates(node.body, scope) | self._templates(node.orelse, scope)
        if isinstance(node, ast.Name):
            values = scope.get(node.id, self.module.get(node.id, []))
            found = [self._templates(value, {}) for value in values]
            return set().union(*found) or {"{}"}
        if isinstance(node, ast.Attribute) and _name(node.value) == "settings":
            return {str(getattr(settings, node.attr))}
        if isinstance(node, ast.Call) and _name(node.func) == "encode":
            assert isinstance(node.func, ast.Attribute)
            return self._templates(node.func.value, scope)
        return {"{}"}


def _assigned(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                if len(names) == len(values):
                    pairs = zip(names, values, strict=True)
                    for name, value in pairs:
                        found.setdefault(_name(name), []).append(value)
    return found


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _owner(node: ast.expr) -> str:
    return _name(node.value) if isinstance(node, ast.Attribute) else ""


def _is_of_signing(node: ast.expr) -> bool:
    return _owner(node) == "signing" and _name(node) in ("dumps", "loads", *SIGNERS)


def in_the_source() -> dict[Use, str]:
    """Every use of a salt or prefix, and a file that has it."""
    files = [path for room in ("separations", "stemsite") for path in (ROOT / room).rglob("*.py")]
    return {
        use: str(path.relative_to(ROOT))
        for path in files
        for use in Source(path.read_text()).uses()
    }


def test_every_salt_and_prefix_is_one_that_is_known() -> None:
    found = in_the_source()
    new = {use: path for use, path in found.items() if use not in SALTS | COUNTS}
    assert not new, "a new salt: add it to the table, and an example of its use to the fixture"
    assert not (SALTS | COUNTS) - set(found), "a salt is gone: what was made with it is lost"


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ('salted_hmac("new", text)', ("salted_hmac", "new", "{}")),
        ('def f(key):\n who = f"new {key}"\n salted_hmac(SALT, who)\nSALT = "s"',
         ("salted_hmac", "s", "new {}")),
        ('signing.dumps(fields, salt="new")', ("dumps", "new")),
        ("signing.loads(text)", ("loads",)),
        ("signing.Signer()", ("Signer",)),
        ('response.set_signed_cookie("new", "x")', ("set_signed_cookie", "new", "")),
        ('request.get_signed_cookie("a", salt="new")', ("get_signed_cookie", "a", "new")),
        ('buckets.name_hash(f"new {key}")', ("name_hash", "new {}")),
        ('Withdrawal("new", who, 1, 2)', ("Withdrawal", "new", "{}")),
        ('hashlib.sha256(f"new {key}".encode())', ("sha256", "new {}")),
        ('hashlib.blake2b(data, person=b"new")', ("blake2b", "b'new'")),
        ('hmac.new(key, f"new {x}".encode(), "sha256")', ("new", "new {}")),
        ('TokenGenerator(key_salt="new")', ("TokenGenerator", "new")),
    ],
)  # fmt: skip
def test_the_scan_sees_each_way_to_use_one(text: str, use: Use) -> None:
    assert use in set(Source(text).uses())


@pytest.mark.parametrize("text", ["hashlib.sha256(data)", "json.dumps(data)", "json.loads(text)"])
def test_the_scan_leaves_alone_what_has_none(text: str) -> None:
    assert not set(Source(text).uses())


def test_cookies_keep_their_names() -> None:
    names = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME, settings.VISITOR_COOKIE_NAME)
    assert names == ("sessionid", "csrftoken", "visitor")

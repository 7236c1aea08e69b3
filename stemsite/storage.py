"""Static files under hashed names, which modules of JavaScript know each other by."""

from whitenoise.storage import CompressedManifestStaticFilesStorage

NAMED = (
    r"(?P<matched>\b(?P<before>from |import |import\(\s*|new URL\(\s*)"
    r'"(?P<url>\.[^"]+)")'
)


class ModuleStorage(CompressedManifestStaticFilesStorage):
    """Writes the hashed names into what this site's modules name relatively: "./other.js".

    Django's own switch for that (`support_js_module_import_aggregation`) reads the files of
    every package as well, fails at one of django-htmx that is no part of a page, and leaves out
    `new URL("./file", import.meta.url)`, which is how a module names an AudioWorklet.
    Modules that import each other in a circle can have no hashes and stop `collectstatic`.
    """

    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        ("js/*.js", ((NAMED, '%(before)s"%(url)s"'),)),
    )

"""Static files under hashed names, also in the imports of JavaScript modules."""

from pathlib import Path
from typing import Any

from whitenoise.storage import CompressedManifestStaticFilesStorage

IMPORTS = (
    r"(?P<matched>\b(?P<before>from |import |import\(\s*|new URL\(\s*)"
    r'"(?P<url>\.[^"]+)")'
)


class ModuleStorage(CompressedManifestStaticFilesStorage):
    """Replaces relative names ("./other.js") in this site's modules by the hashed ones.

    Django's own switch for that (`support_js_module_import_aggregation`) also reads the files of
    every package, fails at one of django-htmx that no page uses, and leaves out
    `new URL("./file", import.meta.url)`, which is how a module names an AudioWorklet.
    Modules that import each other in a circle can have no hashes and stop `collectstatic`.
    """

    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        ("js/*.js", ((IMPORTS, '%(before)s"%(url)s"'),)),
    )

    def _save(self, name: str, content: Any) -> str:
        """Write a file beside its place and rename it.

        A cut-off one would stay: `collectstatic` takes what is newer than its source for whole.
        """
        part = f"{name}.part"
        self.delete(part)  # of one that was killed
        written: str = super()._save(part, content)
        Path(self.path(written)).replace(self.path(name))
        return name

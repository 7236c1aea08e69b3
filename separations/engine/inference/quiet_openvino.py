"""Import OpenVINO without its telemetry, which would send a report at import.

Import it from here, and nothing of it before this module.
"""

import sys
from typing import Any, cast

sys.modules.setdefault("openvino_telemetry", cast(Any, None))
import openvino as openvino  # noqa: E402
from openvino.frontend import FrontEndManager as FrontEndManager  # noqa: E402

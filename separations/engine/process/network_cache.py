"""Load the networks of one bag of models on demand, and cache them."""

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from separations.engine import engine_choice
from separations.engine.engine_choice import OPENVINO, Choice, Plan
from separations.engine.inference.network import Network
from separations.engine.options import Options
from separations.engine.tuning import tuner
from separations.engine.weights.store import ModelInfo

logger = logging.getLogger(__name__)


class NetworkCache:
    """Networks of the bag `info`, for songs with the same `options` but for stems and passes.

    Args:
        engine_dir: where choices of engines and compiled networks are stored.
        wait: called a few times a second while a network is compiled.
    """

    def __init__(
        self,
        info: ModelInfo,
        model_dir: Path,
        engine_dir: Path,
        options: Options,
        wait: Callable[[], None],
    ) -> None:
        self._info, self._options = info, options
        self._model_dir, self._engine_dir, self._wait = model_dir, engine_dir, wait
        self._loading = threading.Lock()
        self._networks: dict[int, Network] = {}
        found = self._choice()
        # A song never waits for its machine to be measured.
        self.plan = found.plan if found else engine_choice.best_guess(info, options)
        self._guessed = found is None

    def _choice(self) -> Choice | None:
        return tuner.known(self._model_dir, self._engine_dir, self._options)

    def is_outdated(self) -> bool:
        """Whether the machine was measured since its engine was guessed."""
        return self._guessed and self._choice() is not None

    @property
    def side_by_side(self) -> int:
        """How many chunks to run at a time."""
        if self.plan.engine == OPENVINO:
            return self.plan.streams
        return max(1, self._options.jobs)

    def network(self, part: int) -> Network:
        """The network of one model of the bag.

        Raises:
            Fault: model_unusable.
        """
        with self._loading:
            if part not in self._networks:
                self._networks[part] = self._load(part)
            return self._networks[part]

    def _load(self, part: int) -> Network:
        if self.plan.engine == OPENVINO:
            try:
                return self._load_compiled(part)
            except Exception:
                logger.warning("OpenVINO cannot be used; torch goes on", exc_info=True)
                self._to_torch()
        from separations.engine.inference.torch_network import TorchNetwork, share_cpus

        options = self._options
        share_cpus(options.threads, self.side_by_side)
        return TorchNetwork(self._info, part, self.plan.precision, options.segment, options.device)

    def fall_back(self) -> bool:
        """Switch from OpenVINO to torch after a failure. False if torch runs already."""
        with self._loading:
            if self.plan.engine != OPENVINO:
                return False
            self._to_torch()
            return True

    def _to_torch(self) -> None:
        self.plan = Plan()
        self._networks.clear()
        gc.collect()

    def _load_compiled(self, part: int) -> Network:
        from separations.engine.inference import openvino_network

        def make() -> Network:
            artefact = tuner.compiled(
                self._model_dir, self._engine_dir, options, part, self.plan, self._wait
            )
            try:
                compiled = openvino_network.read_compiled(artefact, self.plan, options.threads)
            except (RuntimeError, ValueError):
                artefact.unlink(missing_ok=True)  # made by another build, or cut off
                raise
            alone = self._info.passes == 1
            return openvino_network.OpenVinoNetwork(
                compiled, self.plan.streams, options.segment, keeps_memory=alone
            )

        options = self._options
        try:
            return make()
        except (RuntimeError, ValueError):
            logger.warning("A compiled network is made again", exc_info=True)
            return make()

"""Metrics by their names: which way is better."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["max", "min"]

_FALLING = re.compile(r"(?:^|[^a-z])(?:loss|error|perplexity|mae|mse|rmse)(?:$|[^a-z])", re.IGNORECASE)
"""Words of a key whose smaller value is the better one: `val_loss`, `eval/rmse`, not `flawless`."""


@dataclass(frozen=True)
class MetricRules:
    """What is said of metrics beyond their values.

    Args:
        directions: by key, whether the largest or the smallest value is the best; other keys go by their words.
    """

    directions: Mapping[str, Direction] = field(default_factory=dict)

    def higher_is_better(self, key: str) -> bool:
        """Whether a larger value of a metric is better than a smaller one."""
        if key in self.directions:
            return self.directions[key] == "max"
        return _FALLING.search(key) is None

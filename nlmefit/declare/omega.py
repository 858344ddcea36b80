"""Which random effects are correlated."""

from dataclasses import dataclass
from typing import final

from nlmefit.core.errors import ModelError


@final
@dataclass(frozen=True, init=False)
class Blocks:
    """Blocks of correlated etas: `nm.Blocks("CL V", "base kout C50")`; all others are independent.

    Correlations are named `corr_CL_V`, in the order in which the etas are declared, and start at 0; set other starts by
    `model.at({"corr_CL_V": 0.3})`.
    """

    names: tuple[tuple[str, ...], ...]

    def __init__(self, *blocks: str):
        for block in blocks:
            if not isinstance(block, str):
                raise ModelError(f'A block of Omega is written as one string, for example nm.Blocks("CL V"), got {block!r}.')
        names = tuple(tuple(block.split()) for block in blocks)
        for together in names:
            if len(together) < 2:
                raise ModelError(f"A block of Omega needs two etas or more, got `{' '.join(together)}`.")
        flat = [name for block in names for name in block]
        twice = {name for name in flat if flat.count(name) > 1}
        if twice:
            raise ModelError(f"An eta can be in one block of Omega only, found twice: {', '.join(sorted(twice))}.")
        object.__setattr__(self, "names", names)

    def __repr__(self) -> str:
        return "Blocks(" + ", ".join(f'"{" ".join(block)}"' for block in self.names) + ")"

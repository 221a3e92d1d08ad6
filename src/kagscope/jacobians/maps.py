"""Layer maps: the function whose Jacobian is meant, cut out of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.layers import Call
from kagscope.jacobians.runner import Change, Runner, Stop, Unmeasurable, intercept, tensor_of

Kind = Literal["input", "block", "output"]
KINDS: tuple[Kind, ...] = ("input", "block", "output")


@dataclass(frozen=True)
class LayerMap:
    """A function of one tensor, the rest of the forward pass held fixed.

    Attributes:
        runner: of the model.
        call: the layer and which of its calls.
        kind: "input": model input to layer output; "block": the call's own first input, in every place among the arguments where
            that tensor was passed, to its output; "output": layer output to model output.
    """

    runner: Runner
    call: Call
    kind: Kind

    def start(self, inputs: Inputs) -> Tensor:
        """Where the function is differentiated: the value of its variable at ``inputs``, batch first, detached."""
        if self.kind == "input":
            return inputs.tensors()[inputs.place_of_variable()].detach()
        seen: list[Tensor] = []

        def see(value: Tensor) -> Tensor:
            seen.append(value.detach().clone())  # as it is now: later operations in place must not reach it
            raise Stop

        hooks = {"on_input": see} if self.kind == "block" else {"on_output": see}
        with intercept(self._module(), self.call.index, **hooks):
            self.runner.to_stop(inputs)
        if not seen:
            raise Unmeasurable("it was not called this time; the forward pass depends on the data")
        if len(seen[0]) != inputs.count:
            shape = tuple(seen[0].shape)
            raise Unmeasurable(f"its input has shape {shape}, whose first dimension is not the {inputs.count} points")
        return seen[0]

    def function(self, inputs: Inputs) -> Callable[[Tensor], Tensor]:
        """The function itself, from a value of its variable (B, …) to its value (B, …); differentiable."""

        def apply(u: Tensor) -> Tensor:
            variable = u.clone()  # the model may work on it in place
            if self.kind == "output":
                with intercept(self._module(), self.call.index, on_output=lambda _: variable):
                    return self._model_output(inputs)
            if self.kind == "input":
                return self._layer_output(inputs.with_tensor(inputs.place_of_variable(), variable))
            return self._layer_output(inputs, on_input=lambda _: variable)

        return apply

    def value(self, inputs: Inputs) -> Tensor:
        """The function's value at ``inputs``, by one forward pass: the layer's output, of an "output" map the model's."""
        return self._model_output(inputs) if self.kind == "output" else self._layer_output(inputs)

    def _model_output(self, inputs: Inputs) -> Tensor:
        output = tensor_of(self.runner(inputs))
        if output is None or len(output) != inputs.count:
            raise Unmeasurable("the model's output is not a floating-point tensor with the batch first")
        return output

    def _layer_output(self, inputs: Inputs, on_input: Change | None = None) -> Tensor:
        seen: list[Tensor] = []

        def see(value: Tensor) -> Tensor:
            seen.append(value.clone())  # as the layer returned it, whatever happens to it afterwards
            raise Stop

        with intercept(self._module(), self.call.index, on_input=on_input, on_output=see):
            self.runner.to_stop(inputs)
        if not seen:
            raise Unmeasurable("it was not called this time; the forward pass depends on the data")
        return seen[0]

    def _module(self) -> torch.nn.Module:
        return self.runner.model.get_submodule(self.call.path)

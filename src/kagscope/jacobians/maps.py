"""Layer maps: the functions inside a forward pass whose Jacobians are measured."""

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
    """Function of one tensor inside a forward pass, with everything else held fixed.

    Attributes:
        runner: runs the model.
        call: which call of which layer.
        kind: "input": model input to layer output; "block": the call's own first input, in every place among the arguments where
            that tensor was passed, to its output; "output": layer output to model output.
    """

    runner: Runner
    call: Call
    kind: Kind

    def start(self, inputs: Inputs) -> Tensor:
        """Value of the variable at ``inputs``, where the function is differentiated; batch first, detached."""
        if self.kind == "input":
            return inputs.tensors()[inputs.variable_key()].detach()
        seen: list[Tensor] = []

        def see(value: Tensor) -> Tensor:
            seen.append(value.detach().clone())  # a copy, which later in-place operations cannot reach
            raise Stop

        hooks = {"on_input": see} if self.kind == "block" else {"on_output": see}
        with intercept(self._module(), self.call.index, **hooks):
            self.runner.run_until_stop(inputs)
        if not seen:
            raise Unmeasurable("it was not called this time; the forward pass depends on the data")
        if len(seen[0]) != inputs.count:
            shape = tuple(seen[0].shape)
            raise Unmeasurable(f"its input has shape {shape}, whose first dimension is not the {inputs.count} points")
        return seen[0]

    def function(self, inputs: Inputs) -> Callable[[Tensor], Tensor]:
        """The function itself, from a value (B, …) of the variable to an output (B, …); differentiable."""

        def apply(u: Tensor) -> Tensor:
            variable = u.clone()  # the model may modify it in place
            if self.kind == "output":
                with intercept(self._module(), self.call.index, on_output=lambda _: variable):
                    return self._model_output(inputs)
            if self.kind == "input":
                return self._layer_output(inputs.with_tensor(inputs.variable_key(), variable))
            return self._layer_output(inputs, on_input=lambda _: variable)

        return apply

    def value(self, inputs: Inputs) -> Tensor:
        """Value of the function at ``inputs``, from one forward pass: the layer's output, or the model's for an "output" map."""
        return self._model_output(inputs) if self.kind == "output" else self._layer_output(inputs)

    def _model_output(self, inputs: Inputs) -> Tensor:
        output = tensor_of(self.runner(inputs))
        if output is None or len(output) != inputs.count:
            raise Unmeasurable("the model's output is not a floating-point tensor with the batch first")
        return output

    def _layer_output(self, inputs: Inputs, on_input: Change | None = None) -> Tensor:
        seen: list[Tensor] = []

        def see(value: Tensor) -> Tensor:
            seen.append(value.clone())  # as the layer returned it, before anything modifies it
            raise Stop

        with intercept(self._module(), self.call.index, on_input=on_input, on_output=see):
            self.runner.run_until_stop(inputs)
        if not seen:
            raise Unmeasurable("it was not called this time; the forward pass depends on the data")
        return seen[0]

    def _module(self) -> torch.nn.Module:
        return self.runner.model.get_submodule(self.call.path)

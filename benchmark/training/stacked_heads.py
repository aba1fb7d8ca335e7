"""Many heads of one kind as one: their parameters stacked, their products batched.

Logits and gradients are worked out here by hand, layer by layer: a step of a head is so small that
autograd's bookkeeping and fresh memory cost more than its arithmetic (docs/FARM.md). What the heads
are is said by benchmark.models.heads alone; tests hold the two together, values and gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.experiment import Head
from benchmark.tasks import TaskName


@dataclass(frozen=True)
class _Branch:
    """What a branch's backward pass needs of its forward pass: inputs and hidden layer."""

    inputs: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Pass:
    """A forward pass: logits per task (k, n, classes), and what its gradients need."""

    logits: dict[TaskName, Tensor]
    branches: dict[str, _Branch]
    gates: dict[TaskName, Tensor]
    """Per task, what the gender embedding was multiplied by, where it was."""


class StackedHeads:
    """`k` heads of one definition; every tensor's first dimension is the head.

    values, gradients: by the heads' own parameter names, (k, …) float32, contiguous.
    """

    def __init__(self, values: dict[str, Tensor], definition: Head) -> None:
        self.values, self.definition = values, definition
        self.gradients = {name: torch.zeros_like(value) for name, value in values.items()}

    @classmethod
    def stacked(
        cls, heads: Sequence[nn.Module], definition: Head, device: torch.device
    ) -> StackedHeads:
        """Copy the parameters of heads that build_head made, all from `definition`."""
        states = [dict(head.named_parameters()) for head in heads]
        values = {
            name: torch.stack([state[name].detach() for state in states]).to(device)
            for name in states[0]
        }
        return cls(values, definition)

    def only(self, rows: Tensor) -> StackedHeads:
        """Copy the heads at `rows`, (n,) int64 on the device."""
        return StackedHeads(_rows(self.values, rows), self.definition)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def head(self, place: int) -> dict[str, Tensor]:
        """Copy one head's parameters, by name, as its state dict has them."""
        return {name: value[place].clone() for name, value in self.values.items()}

    def forward(self, features: Tensor) -> Pass:
        """Map features (k, n, n_features), float32, to logits; each head reads its own rows."""
        branches: dict[str, _Branch] = {}
        gates: dict[TaskName, Tensor] = {}
        if self.definition.conditioning == "none":
            logits = {
                task: self._branch(task, features, branches) for task in self.definition.tasks
            }
            return Pass(logits, branches, gates)
        gender = self._hidden("gender", features)
        branches["gender"] = _Branch(features, gender)
        logits = {}
        for task in self.definition.tasks:
            if task == "gender":
                logits[task] = self._linear("gender.output", gender)
                continue
            shown = gender
            if (weighed := self._gate(task, gender, branches)) is not None:
                gates[task] = weighed
                shown = weighed * gender
            logits[task] = self._branch(task, self._join(features, shown), branches)
        return Pass(logits, branches, gates)

    def backward(self, passed: Pass, errors: Mapping[TaskName, Tensor]) -> None:
        """Write every parameter's gradient, given the loss's gradient by each logit.

        errors: per task (k, n, classes), the heads' losses summed; what is in them is used up.
        """
        if self.definition.conditioning == "none":
            for task in self.definition.tasks:
                self._branch_backward(task, passed.branches[task], errors[task])
            return
        first = passed.branches["gender"]
        by_gender = self._linear_backward("gender.output", first.hidden, errors["gender"])
        for task in self.definition.tasks:
            if task != "gender":
                by_gender += self._conditioned_backward(task, passed, errors[task])
        self._hidden_backward("gender", first, by_gender)

    def _conditioned_backward(self, task: TaskName, passed: Pass, error: Tensor) -> Tensor:
        """Give what one conditioned branch asks of the gender embedding: (k, n, width)."""
        gender = passed.branches["gender"].hidden
        branch = passed.branches[task]
        by_hidden = self._linear_backward(f"{task}.output", branch.hidden, error)
        self._hidden_backward(task, branch, by_hidden)
        seen = self.values[f"{task}.hidden.weight"][:, :, self._gender_columns()]
        by_shown = torch.bmm(by_hidden, seen)
        gate = passed.gates.get(task)
        if gate is None:
            return by_shown
        by_gate = by_shown * gender
        if self.definition.conditioning == "gate":
            # A sigmoid of one score per face: s' = s (1 - s).
            by_score = by_gate.sum(2, keepdim=True) * gate * (1 - gate)
        else:
            # A softmax: a' = a (b - the sum of a b).
            by_gate *= gate
            by_score = by_gate - gate * by_gate.sum(2, keepdim=True)
        scores = f"gender_for_{task}.scores"
        asked = self._branch_backward(scores, passed.branches[scores], by_score)
        by_scores = torch.bmm(asked, self.values[f"{scores}.hidden.weight"])
        return by_shown.mul_(gate).add_(by_scores)

    def _gate(self, task: TaskName, gender: Tensor, branches: dict[str, _Branch]) -> Tensor | None:
        """Give what the gender embedding is multiplied by for `task`; None: it is shown as is."""
        if self.definition.conditioning == "embedding":
            return None
        scores = self._branch(f"gender_for_{task}.scores", gender, branches)
        if self.definition.conditioning == "gate":
            return scores.sigmoid()
        return scores.softmax(2)

    def _join(self, features: Tensor, gender: Tensor) -> Tensor:
        first = self.definition.conditioning == "embedding"
        return torch.cat([gender, features] if first else [features, gender], dim=2)

    def _gender_columns(self) -> slice:
        width = self.definition.hidden_units
        return (
            slice(0, width) if self.definition.conditioning == "embedding" else slice(-width, None)
        )

    def _branch(self, name: str, inputs: Tensor, branches: dict[str, _Branch]) -> Tensor:
        hidden = self._hidden(name, inputs)
        branches[name] = _Branch(inputs, hidden)
        return self._linear(f"{name}.output", hidden)

    def _hidden(self, name: str, inputs: Tensor) -> Tensor:
        return self._linear(f"{name}.hidden", inputs).relu_()

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        weight, bias = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))

    def _branch_backward(self, name: str, branch: _Branch, error: Tensor) -> Tensor:
        """Write a branch's gradients; give the loss's gradient before its ReLU."""
        by_hidden = self._linear_backward(f"{name}.output", branch.hidden, error)
        self._hidden_backward(name, branch, by_hidden)
        return by_hidden

    def _linear_backward(self, name: str, inputs: Tensor, error: Tensor) -> Tensor:
        self._write_gradients(name, inputs, error)
        return torch.bmm(error, self.values[f"{name}.weight"])

    def _hidden_backward(self, name: str, branch: _Branch, by_hidden: Tensor) -> None:
        """Take the gradient by a hidden layer back through its ReLU, in place, and its product."""
        by_hidden *= branch.hidden > 0
        self._write_gradients(f"{name}.hidden", branch.inputs, by_hidden)

    def _write_gradients(self, name: str, inputs: Tensor, error: Tensor) -> None:
        torch.bmm(error.transpose(1, 2), inputs, out=self.gradients[f"{name}.weight"])
        torch.sum(error, 1, out=self.gradients[f"{name}.bias"])


def _rows(values: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value.index_select(0, rows) for name, value in values.items()}

"""The rules by which a signal goes back through a network, applied to any model.

While a model runs, an `Interception` sees every tensor function it calls, whatever the spelling,
and replaces those that the rule concerns. One backward pass then gives the projection. An
interception belongs to the thread that entered it, and does not change the model.

Letters of a rule's code, as in the authors' release: T or F for the forward mask, the switches, the
rectified signal; then, if they differ from the defaults T and F, for the identity in response
normalization and for positive weights only. Mahendran, Vedaldi 2016, "Salient deconvolutional
networks".
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from unpool.errors import OptionError
from unpool.visualize import functions
from unpool.visualize.backward import Pool, Rectify, pooled, rectified
from unpool.visualize.functions import UNLIKE, WEIGHTED, Call, Replacement, signals

OVERLAPS = ("sum", "overwrite", "center")
"""Where the signal of a max pooling goes, and what happens where windows overlap.

"sum": to the maxima; signals of several windows add up, as in back-propagation. "overwrite": to the
maxima; the last window in row-major order wins. "center": to the middle of each window.
"""


class Rule(NamedTuple):
    """How layers pass the signal on its way down."""

    mask: bool  #: a ReLU passes it only where its input was positive
    rectify: bool  #: a ReLU passes only its positive part
    overlap: str = "sum"  #: one of `OVERLAPS`
    lrn: str = "identity"  #: response normalization passes it unchanged, or by the "gradient"
    excite: bool = False  #: convolutions and linear layers pass it by positive weights only


RULES = {
    "deconvnet": Rule(mask=False, rectify=True),
    "guided": Rule(mask=True, rectify=True),
    "saliency": Rule(mask=True, rectify=False, lrn="gradient"),
}
"""Zeiler, Fergus 2014; Springenberg et al. 2015; Simonyan, Vedaldi, Zisserman 2014."""

_CODES = ("FTT", "TTT", "TTTF", "TTTFT", "TTF", "TTFF", "FTF", "FFT", "TFT", "TFF", "FFF")

_WAYS = (
    ("relu", "treat it as a ReLU"),
    ("gradient", "take its derivative"),
    ("constant", "let no signal through"),
)


def find_rule(rule: str | Rule, overlap: str | None = None, lrn: str | None = None) -> Rule:
    """Look up a rule by its name or code, and replace its overlap or normalization if given.

    Args:
        rule: one of `RULES`, a code ("FTT" is deconvnet, "TTFF" saliency, "TTT" guided, "FFT"
            deconvnet without switches ...), or a rule.
        overlap: one of `OVERLAPS`.
        lrn: "identity" or "gradient".

    >>> find_rule("FFT")
    Rule(mask=False, rectify=True, overlap='center', lrn='identity', excite=False)
    """
    if isinstance(rule, str):
        rule = RULES[rule] if rule in RULES else _decoded(rule)
    if not isinstance(rule, Rule):
        raise OptionError(f"got rule={rule!r}; wanted a Rule, or one of {', '.join(RULES)}")
    rule = rule._replace(overlap=overlap or rule.overlap, lrn=lrn or rule.lrn)
    if rule.overlap not in OVERLAPS:
        raise OptionError(f"got overlap {rule.overlap!r}; it is one of {', '.join(OVERLAPS)}")
    if rule.lrn not in ("identity", "gradient"):
        raise OptionError(f"got lrn {rule.lrn!r}; it is 'identity' or 'gradient'")
    return rule


def _decoded(code: str) -> Rule:
    if code not in _CODES:
        raise OptionError(
            f"got rule {code!r}; the rules are {', '.join(RULES)}, or a code of Mahendran and "
            f"Vedaldi: {', '.join(_CODES)}"
        )
    letters = code + "TF"[len(code) - 3 :]
    mask, switches, rectify, identity, excite = (letter == "T" for letter in letters)
    overlap, lrn = "sum" if switches else "center", "identity" if identity else "gradient"
    return Rule(mask, rectify, overlap, lrn, excite)


class Interception(Replacement):
    """A context in which tensor functions of this thread pass the signal down by a rule.

    Functions of tensors without a gradient are left alone, as are linear ones: batch norm in
    evaluation mode, for one, uses its exact adjoint. PyTorch's normalizations other than response
    normalization are differentiated; one written by hand with `pow` and `sqrt` has no rule.

    Args:
        rule: how ReLU, pooling and response normalization pass the signal.
        activations: how functions without a rule are treated, by name ("silu", "sigmoid" ...) or
            for all: "relu" treats them as a ReLU (except functions such as attention or the
            logarithm), "gradient" takes their derivative, "constant" passes no signal, so that a
            gate keeps its value.

    Raises:
        OptionError: an unknown treatment; within the context, a function without a rule, by name.
    """

    def __init__(self, rule: Rule, activations: str | Mapping[str, str] | None = None) -> None:
        super().__init__()
        every = activations if isinstance(activations, str) and activations else None
        named = dict(activations) if isinstance(activations, Mapping) else {}
        known, asked = [way for way, _ in _WAYS], [*named.values(), every or "relu"]
        if not isinstance(activations, str | Mapping | None) or any(w not in known for w in asked):
            raise OptionError(
                f"got activations={activations!r}; name 'relu', 'gradient' or 'constant' for each, "
                "for example activations={'silu': 'relu'}"
            )
        self.rule, self._every, self._named = rule, every, named
        self._plain = rule.mask and not rule.rectify  # the plain derivative
        self._seen = functions.KNOWN | named.keys()
        self._known: set[Any] = set()  # autograd nodes whose derivative was asked for

    def replace(self, call: Call) -> Any:
        """Compute the value of a call, with the backward pass of the rule."""
        name = call.name
        if name not in self._seen or (signal := next(signals(call.tensors()), None)) is None:
            return call.value()
        if "max_pool" in name:
            return self._pool(call)
        if name == "local_response_norm" and self.rule.lrn == "identity":
            return rectified(signal, call.of(signal), False, False)
        if name in WEIGHTED and self.rule.excite:
            return _excite(call)
        if self._plain or name in WEIGHTED:
            return call.value()
        return self._activate(call, signal)

    def require_rules(self, maps: Tensor) -> None:
        """Refuse maps, computed within the interception, that depend on functions without a rule.

        The last guard: it walks the autograd graph, and finds nonlinear functions hidden inside
        compiled or hand-written ones.

        Raises:
            OptionError: naming the function, or saying that the maps have no gradient.
        """
        if maps.grad_fn is None:
            raise OptionError(
                "no signal can go down from this layer: it does not depend on the images, or the "
                "model turns gradients off (torch.no_grad, detach); remove that"
            )
        for node in () if self._plain else _below([maps.grad_fn], self._known):
            name = type(node).__name__.partition("Backward")[0]
            if isinstance(node, BackwardCFunction):
                hidden = type(node)._forward_cls not in (Rectify, Pool)  # type: ignore[attr-defined]
            else:
                hidden = name.lower() in functions.HIDDEN or name.startswith("ScaledDotProduct")
            if hidden and self._named.get(name, self._every) != "gradient":
                raise OptionError(
                    f"{name} is computed out of sight (in a compiled, scripted or hand-written "
                    "function), and has no rule; call the torch function itself, or pass "
                    f"activations={{{name!r}: 'gradient'}} for its derivative"
                )

    def _pool(self, call: Call) -> Any:
        if self.rule.overlap == "sum":  # the derivative
            return call.value()
        if call.name.startswith("fractional"):
            raise OptionError(f"{call.name} goes down by its switches only; pass overlap='sum'")
        return pooled(call.name, call.args, call.kwargs, self.rule.overlap)

    def _activate(self, call: Call, signal: Tensor) -> Any:
        name, top = call.name, call.ceiling()
        if top is not None:
            return rectified(signal, call.of(signal), self.rule.mask, self.rule.rectify, top)
        if call.selects():  # the derivative goes to the larger map, as in pooling
            return call.value()
        asked = self._named.get(name, self._every)
        meant = "gradient" if name in functions.SMOOTH else asked
        if meant == "relu" and name not in UNLIKE:
            return rectified(signal, call.of(signal), self.rule.mask, self.rule.rectify)
        if meant == "constant":
            return _detached(call.value())
        if meant == "gradient":
            above, y = {t.grad_fn for t in signals(call.tensors())}, call.value()
            given = signals(y if isinstance(y, tuple) else [y])
            self._known.update(_below([t.grad_fn for t in given], above))
            return y
        first, *others = _WAYS if name not in UNLIKE else _WAYS[1:]
        raise OptionError(
            f"the model calls {name}, which this rule does not cover; pass "
            f"activations={{{name!r}: {first[0]!r}}} to {first[1]}, "
            f"{', '.join(f'{word!r} to {what}' for word, what in others)}, or use "
            "rule='saliency'"
        )


def _detached(value: Any) -> Any:
    """A tensor, or each of several as attention gives, without gradients."""
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    return value.detach() if isinstance(value, Tensor) else value


def _excite(call: Call) -> Any:
    """The value with all weights, the backward pass with the positive ones."""
    if len(call.args) > 1:
        x, weight, *others = call.args
        down = call.function(x, weight.clamp(min=0), *others, **call.kwargs)
    else:
        weight = call.kwargs["weight"].clamp(min=0)
        down = call.function(*call.args, **{**call.kwargs, "weight": weight})
    return call.value().detach() + (down - down.detach())  # adds zero, and the gradient of `down`


def _below(nodes: list[Any], stop: set[Any]) -> Iterator[Any]:
    """The nodes reachable from these in an autograd graph without passing those in `stop`."""
    seen = set(stop)
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.extend(following for following, _ in node.next_functions)
            yield node

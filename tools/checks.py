"""How an exercise of `tutorial.ipynb` is checked. An exercise has our answer, small inputs of two sentences,
and the wrong answers that students really write, each under the name of its misconception. It also has
properties of `test_spanrel.py` or of `tools/exercises.py`, which take the student's function in the place of
ours. Where an answer is differentiated, so is the student's."""

import copy
import inspect
import itertools
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import nn

import test_spanrel as proof
from data import Sentence
from test_spanrel import same

# -- An exercise ---------------------------------------------------------------------------------------------

AGAIN = "each sentence has its own numbers: here the first one's stand for all"
ALONE = "each sentence has its answer: here it is that of the first one alone"
ARRAY = "a tensor, please, not an array of numpy"
LOST = "the numbers are right, but the gradient is lost: no .item(), .detach(), no_grad or numpy"
NAN = "the numbers are right, but the gradient is NaN: there is 0 / 0 where the mask is empty [L5]"


@dataclass
class Exercise:
    """What `check` knows of an exercise. Where many answers are right, only the properties decide."""

    ours: object
    inputs: list[tuple]
    wrong: dict[str, object]
    properties: tuple = ()
    points: int = 1
    many: bool = False
    batched: bool = False  # the answer and all tensors given have the dimension B
    differentiated: bool = False  # training needs the gradient of the answer
    compared: object = None  # what of an answer is compared, if not all of it: compared(answer, *inputs)

    def __post_init__(self):
        self.ours = inspect.unwrap(self.ours)  # without the checks of its shapes, which take time
        if self.batched:
            self.wrong[AGAIN] = lambda *inputs: self.ours(*first_sentence(inputs, again=True))
            self.wrong[ALONE] = lambda *inputs: self.ours(*first_sentence(inputs))
        if self.batched and not self.compared:
            self.wrong[ARRAY] = lambda *inputs: self.ours(*inputs).detach().numpy()
        if self.differentiated:
            self.wrong[LOST] = lambda *inputs: self.ours(*inputs).detach()

    @property
    def name(self) -> str:
        """The name of the function that a student writes."""
        return self.ours.__name__


def first_sentence(inputs, again=False):
    """The inputs of the first sentence, alone or again for each sentence."""
    chosen = []
    for value in inputs:
        if isinstance(value, torch.Tensor):
            value = value[:1].expand_as(value) if again else value[:1]
        chosen.append(value)
    return chosen


# -- What is wrong with an answer ----------------------------------------------------------------------------


def stub():
    """What nbgrader puts in the place of an answer."""
    raise NotImplementedError()


STUBS = [(lambda: None).__code__.co_code, stub.__code__.co_code]  # what `...` becomes, and nbgrader's
FLOAT32, OF_GRADIENTS = 1e-5, 1e-3  # rounding; that of gradients, which sum more numbers
LONGEST = 240  # characters of a value


def is_stub(answer) -> bool:
    """Whether a function is empty still."""
    return hasattr(answer, "__code__") and answer.__code__.co_code in STUBS


def faults(exercise, answer):
    """In words, the inputs on which an answer is not ours, then the properties that do not hold of it."""
    ways = [outcome, gradients] if exercise.differentiated else [outcome]
    for way, inputs in itertools.product(ways, [] if exercise.many else exercise.inputs):
        if not agree(way(exercise, answer, inputs), way(exercise, exercise.ours, inputs)):
            yield named("smallest input:", exercise, inputs) + difference(way, exercise, answer, inputs)
    for test in exercise.properties:
        witness = Witness(answer, exercise.ours)
        try:
            with patch.object(proof, "same", partial(same, tolerance=FLOAT32)):
                test(**{exercise.name: witness})
        except (Exception, pytest.fail.Exception):  # of an assertion, or whatever the answer raises
            words = getattr(test, "func", test).__name__.removeprefix("test_").replace("_", " ")
            fault = f"  does not hold:   {words}\n" + named("counterexample:", exercise, witness.inputs)
            yield fault + difference(outcome, exercise, answer, witness.inputs)


def misconception(exercise, answer):
    """The name of the wrong answer that does the same on all inputs, or of a gradient that is not there."""
    ours = [outcome(exercise, exercise.ours, inputs) for inputs in exercise.inputs]
    yours = behaviour(exercise, answer, ours)
    for name, wrong in exercise.wrong.items():
        if agree(yours, behaviour(exercise, wrong, ours)):
            return name
    slopes = []
    for result in yours:
        slopes += result.values() if isinstance(result, dict) else []
    if any(gradient is None for gradient in slopes):
        return LOST
    return NAN if any(gradient.isnan().any() for gradient in slopes) else None


def behaviour(exercise, function, ours):
    """What a function makes of all inputs and, if that is what ours does, its gradients."""
    results = [outcome(exercise, function, inputs) for inputs in exercise.inputs]
    if exercise.differentiated and agree(results, ours):
        results += [gradients(exercise, function, inputs) for inputs in exercise.inputs]
    return results


class Witness:
    """An answer in the place of ours. It is given float32, and its last inputs are kept.
    Where there is no span or no pair at all, which no exercise mentions, ours answers."""

    def __init__(self, answer, ours):
        self.answer, self.ours, self.inputs = answer, ours, ()

    def __call__(self, *inputs):
        if not all(tensor.numel() for tensor in tensors_of(inputs)):
            return self.ours(*inputs)
        self.inputs = [in_float32(value) for value in inputs]
        result = self.answer(*self.inputs)
        is_float = isinstance(result, torch.Tensor) and result.is_floating_point()
        if is_float and torch.float64 in [tensor.dtype for tensor in tensors_of(inputs)]:
            return result.double()
        return result


def in_float32(value):
    """A module or a tensor with its numbers in float32, anything else as it is."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).float()
    is_double = isinstance(value, torch.Tensor) and value.dtype == torch.float64
    return value.float() if is_double else value


def outcome(exercise, function, inputs):
    """What a function makes of copies of inputs; in words, if it raises, returns nothing, or changes them."""
    copies = copy.deepcopy(inputs)
    try:
        result = function(*copies)
        if exercise.compared and result is not None:
            result = exercise.compared(result, *inputs)
    except Exception as error:  # whatever a student's function does
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if result is None:
        return "None: is a `return` missing?"
    if not all(map(torch.equal, tensors_of(inputs), tensors_of(copies))):
        return "it changes its arguments: work on copies"
    is_tensor = isinstance(result, torch.Tensor)
    if hasattr(result, "__array__") and not is_tensor and result.shape:
        return "an array of numpy"
    return result.item() if is_tensor and result.dim() == 0 else result


def gradients(exercise, function, inputs):
    """The gradient of a sum of what a function makes with respect to each tensor of numbers, or None.
    Each number of the result has another weight, as the sum of a Softmax is always 1."""
    given = {}
    for place, value in enumerate(inputs):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            given[place] = value.clone().requires_grad_()
    copies = [given[place] * 1 if place in given else value for place, value in enumerate(inputs)]
    try:
        result = function(*copies)
        weights = torch.arange(1.0, 1 + result.numel()).reshape(result.shape)
        (weights * result).sum().backward()
    except Exception:  # there is no gradient: .numpy() refuses, or nothing leads back to the inputs
        pass
    return {place: leaf.grad for place, leaf in given.items()}


def tensors_of(inputs):
    """The tensors among some inputs, those of models included."""
    tensors = []
    for value in inputs:
        tensors += value.state_dict().values() if isinstance(value, nn.Module) else [value]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def agree(yours, expected, atol=FLOAT32):
    """Whether two results are the same, numbers within the rounding of float32."""
    if isinstance(expected, dict):
        return all(agree(yours[place], expected[place], OF_GRADIENTS) for place in expected)
    if isinstance(expected, (list, tuple)) and isinstance(yours, (list, tuple)):
        kinds = (type(yours), len(yours))
        return kinds == (type(expected), len(expected)) and all(map(agree, yours, expected))
    are_tensors = [isinstance(result, torch.Tensor) for result in (yours, expected)]
    if not any(are_tensors):
        return yours == (pytest.approx(expected, FLOAT32) if isinstance(expected, float) else expected)
    if not all(are_tensors) or yours.shape != expected.shape:
        return False
    boolean = (yours.dtype == torch.bool) == (expected.dtype == torch.bool)
    return boolean and bool(close(yours, expected, atol).all())


def close(yours, expected, atol=FLOAT32):
    """Which numbers of two tensors are the same within rounding."""
    return torch.isclose(yours.double(), expected.double(), rtol=1e-4, atol=atol, equal_nan=True)


# -- What a check prints -------------------------------------------------------------------------------------


def names_of(exercise):
    """The names of the arguments."""
    return [*inspect.signature(exercise.ours).parameters]


def named(title, exercise, inputs):
    """A line for each input, by its name."""
    text = ""
    for name, value in zip(names_of(exercise), inputs):
        text += f"  {title:16} {name} = {short(value, longest=2 * LONGEST)}\n"
        title = ""
    return text


def difference(way, exercise, answer, inputs):
    """What the answer makes of some inputs, and what ours does, unless many answers are right."""
    yours, expected = way(exercise, answer, inputs), way(exercise, exercise.ours, inputs)
    if exercise.many:
        return f"  yours:           {short(yours)}"
    if agree(yours, expected):
        return "  the numbers are right"
    subject = ""
    if isinstance(expected, dict):  # of gradients
        place = next(k for k in expected if not agree(yours[k], expected[k], OF_GRADIENTS))
        subject = f"the gradient of {names_of(exercise)[place]} is "
        yours, expected = yours[place], expected[place]
    place, yours, expected = first_difference(yours, expected)
    texts, digits = [short(yours), short(expected)], 4
    while texts[0] == texts[1] and digits < 17:
        digits += 1
        texts = [short(yours, digits), short(expected, digits)]
    kinds = [kind_of(yours), kind_of(expected)]
    if kinds[0] == kinds[1] or "" in kinds:
        kinds = ["", ""]
    lines = ""
    for title, text, kind in zip(("yours:", "expected:"), texts, kinds):
        lines += f"  {title:16} {subject}{place}{text}{kind}\n"
    return lines.rstrip()


def first_difference(yours, expected):
    """Where two long results begin to differ, in words, and both from there on. Short ones stay whole."""
    if len(short(expected, longest=None)) < LONGEST:
        return "", yours, expected
    are_tensors = isinstance(yours, torch.Tensor) and isinstance(expected, torch.Tensor)
    if are_tensors and yours.shape == expected.shape:
        for place in (~close(yours, expected)).nonzero().tolist()[:1]:
            return f"at {place}: ", yours[tuple(place)], expected[tuple(place)]
    if isinstance(yours, list) and isinstance(expected, list):
        start = 0
        while start < len(expected) and yours[start : start + 1] == expected[start : start + 1]:
            start += 1
        return f"from number {start} on: ", yours[start:], expected[start:]
    return "", yours, expected


def kind_of(result):
    """The type of a result, and the shape of a tensor."""
    if not isinstance(result, torch.Tensor):
        return "" if result is None or isinstance(result, str) else f" ({type(result).__name__})"
    kind = "boolean tensor" if result.dtype == torch.bool else "tensor"
    return f" ({kind} of shape {[*result.shape]})"


def short(value, digits=4, longest=LONGEST):
    """An input or a result in a line."""
    if isinstance(value, nn.Linear):
        text = f"nn.Linear with weight {short(value.weight)} and bias {short(value.bias)}"
    elif isinstance(value, nn.Module):
        is_model = hasattr(value, "config")
        text = f"a model with width_dim = {value.config.width_dim}" if is_model else type(value).__name__
    elif isinstance(value, list) and value and isinstance(value[0], Sentence):
        text = "; ".join(map(described, value))
    else:
        text = numbers(value, digits)
    return text if longest is None or len(text) < longest else f"{text[:longest]} …"


def described(sentence):
    """The entities and relations of a sentence."""
    entities = [f"{e.type} [{e.start}, {e.end})" for e in sentence.entities]
    return f"a sentence with entities {', '.join(entities) or 'none'} and {len(sentence.relations)} relations"


def numbers(value, digits):
    """A value with so many digits of each of its numbers."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        text = ", ".join(numbers(item, digits) for item in value)
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    return f"{value + 0.0:.{digits}g}" if isinstance(value, float) else str(getattr(value, "__name__", value))

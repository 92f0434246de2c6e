"""Conditions of rules in CEL, with the variables and libraries that Kubernetes' own admission policies have.

An expression is parsed and checked once, when its policy is read (``engine.py``), and evaluated on the decoded fields that
it reads (``fields.py``, ``program.py``). One that cannot be evaluated counts as true: the rule applies.
"""

from webhook.core.cel.activation import Activation, Facts, NamespaceFacts
from webhook.core.cel.condition import Condition, Conditions, NamedExpression
from webhook.core.cel.engine import MAX_LENGTH

__all__ = ["MAX_LENGTH", "Activation", "Condition", "Conditions", "Facts", "NamedExpression", "NamespaceFacts"]

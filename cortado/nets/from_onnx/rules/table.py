"""Table: the rule of every operator that is read."""

from cortado.nets.from_onnx.node import Rule
from cortado.nets.from_onnx.rules import elementwise, norms, products, quantized, selection, shapes

FAMILIES = (elementwise, products, norms, shapes, selection, quantized)
RULES: dict[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.RULES.items()}

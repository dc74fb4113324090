"""YAML text: as YAML 1.2 reads it, where 2:4 is a text; to version 1.1 it is 124, two minutes and four seconds."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


@dataclass(frozen=True)
class WithoutColons:
    """A pattern of numbers that no text with a colon matches."""

    pattern: re.Pattern[str]

    def match(self, value: str) -> re.Match[str] | None:
        return None if ":" in value else self.pattern.match(value)


class Yaml12(yaml.SafeLoader):
    """The safe loader without numbers to the base of 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, WithoutColons(pattern) if tag in NUMBERS else pattern) for tag, pattern in ways]
        for letter, ways in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> Any:
    """Return what a text in YAML means.  Raises yaml.YAMLError."""
    return yaml.load(text, Yaml12)  # noqa: S506

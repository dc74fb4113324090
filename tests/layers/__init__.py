"""Tests of cortado.layers; a package, so that files of the same name in other rooms do not clash."""

"""Tests of cortado.network; a package, so that files of the same name in other rooms do not clash."""

"""The tests: a package, so that none of this name that another one installed stands before it."""

"""Build backend that refuses: `pip install .` ends with one line that says what to do instead."""


def refuse(*_: object, **__: object) -> None:
    """End the build."""
    raise SystemExit("error: minet is no package; run it from its tree: `make setup`")


# the hooks of PEP 517 and 660 that a front end calls
get_requires_for_build_wheel = get_requires_for_build_editable = refuse
get_requires_for_build_sdist = build_wheel = build_editable = build_sdist = refuse

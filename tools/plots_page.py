"""Write .dvc/plots/page.html, DVC's page of plots: python -m tools.plots_page.

DVC's own page loads its charting script from a server: without a network its charts are missing.
This one contains the script, so it needs no network and can be sent to others.
"""

from pathlib import Path

import vl_convert

from minet.core.files import atomic_write

PAGE = Path(".dvc/plots/page.html")
_SOURCE = Path(__file__).with_name("plots_page.html")
_LICENSES = Path(__file__).with_name("vega-licenses.txt")


def main() -> None:
    """Write the page."""
    with atomic_write(PAGE) as partial:
        partial.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page with DVC's placeholders `{plot_divs}` and `{refresh_tag}`."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    text = _SOURCE.read_text(encoding="utf-8")
    licenses = _LICENSES.read_text(encoding="utf-8").rstrip()
    return text.replace("{licenses}", licenses).replace("{vega}", script)


if __name__ == "__main__":
    main()

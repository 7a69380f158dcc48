"""Write RESULTS.md and its plots from the results of the sections."""

import statistics
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from rounds import Chart, Row, Section, load

HERE = Path(__file__).parent
HEAD = """# How fast it is

Written by `make bench`; never edited. [README.md](README.md) says what each row compares and how. Ratios are medians
over rounds in which everybody was measured in turn, with the smallest and the largest in brackets. *First* is the
target that has to be met, *then* the one that is aimed at.
"""


def write(names: list[str]) -> None:
    """Write the results of all sections that have run on this machine."""
    parts = [HEAD]
    for name in names:
        section = load(name)
        if section is not None:
            parts.append(_section(section))
    (HERE / "RESULTS.md").write_text("\n".join(parts))


def _section(section: Section) -> str:
    lines = [f"## {section.title}", "", f"{section.when}; {section.machine}.", ""]
    if section.rows:
        lines += ["| what | ratio | first | then | |", "|---|---|---|---|---|", *map(_line, section.rows), ""]
    for paragraph in section.said:
        lines += [paragraph, ""]
    for number, chart in enumerate(section.charts):
        file = HERE / "results" / f"{section.name}-{number}.svg"
        _draw(chart, file)
        lines += [f"![{chart.title}](results/{file.name})", ""]
    for chart in section.charts:
        lines += [*_values(chart), ""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    sign = "≤" if row.at_most else "≥"
    targets = ["" if each is None else f"{sign} {each:g}" for each in (row.first, row.then)]
    if not row.ratios:
        return f"| {row.what} | | {targets[0]} | {targets[1]} | not measured here: {row.note} |"
    spread = f"{row.median:.3g} {row.unit} ({min(row.ratios):.3g} to {max(row.ratios):.3g})"
    met, aimed = row.meets(row.first), row.meets(row.then)
    verdict = "" if met is None else "**missed**" if not met else "met, and the aim too" if aimed else "met"
    return f"| {row.what} | {spread} | {targets[0]} | {targets[1]} | {'; '.join(filter(None, (verdict, row.note)))} |"


def _values(chart: Chart) -> list[str]:
    """Return the plotted values as text, for readers and diffs."""
    contenders = list(dict.fromkeys(name for values in chart.values.values() for name in values))
    if chart.x is not None:
        [values] = chart.values.values()
        table = [[f"{x:g}", *(f"{values[name][at]:.4g}" for name in contenders)] for at, x in enumerate(chart.x)]
    else:
        table = [
            [what, *(f"{statistics.median(values[name]):.4g}" if values.get(name) else "" for name in contenders)]
            for what, values in chart.values.items()
        ]
    head = f"| {chart.unit} | {' | '.join(contenders)} |"
    return [f"{chart.title}:", "", head, "|---" * (len(contenders) + 1) + "|", *(f"| {' | '.join(r)} |" for r in table)]


def _draw(chart: Chart, file: Path) -> None:
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    contenders = list(dict.fromkeys(name for values in chart.values.values() for name in values))
    if chart.x is not None:
        [values] = chart.values.values()
        for name in contenders:
            axes.plot(chart.x, values[name], marker="o", label=name)
        axes.set_xticks(chart.x)
    else:
        width = 0.8 / len(contenders)
        for index, name in enumerate(contenders):
            found = [(at, each[name]) for at, each in enumerate(chart.values.values()) if each.get(name)]
            middles = [statistics.median(values) for _, values in found]
            below = [middle - min(values) for middle, (_, values) in zip(middles, found, strict=True)]
            above = [max(values) - middle for middle, (_, values) in zip(middles, found, strict=True)]
            places = [at + (index - (len(contenders) - 1) / 2) * width for at, _ in found]
            axes.bar(places, middles, width, yerr=[below, above], label=name, error_kw={"lw": 0.7})
        axes.set_xticks(range(len(chart.values)), list(chart.values), rotation=15, ha="right")
    axes.set_title(chart.title)
    axes.set_ylabel(chart.unit)
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)

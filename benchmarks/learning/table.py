"""The rows of `run.py` as Markdown tables and a picture.

    python benchmarks/learning/table.py rows.jsonl
    python benchmarks/learning/table.py rows.jsonl --picture learning.svg

Of an estimator's rates the one with the better mean score over all seeds is shown and named.
"""

import argparse
import json
import statistics

NOTE = (
    "Scores at the end of training: the median, and the lowest to the highest over the seeds. "
    "Of the rates measured (all are named, the shown one first) the one with the better mean "
    "over all seeds. The first row of a case has the best mean."
)
REFERENCES = ("float", "planted", "k_means")  # Beside the estimators: drawn in black.
LOGARITHMIC = ("final loss", "patterns", "squared error")  # How these measures are drawn.


def family_of(row: dict) -> str:
    """What a case belongs to: "planted" of "planted-signs-64-0-squared"."""
    return row["case"].partition("-")[0]


def best_rates(rows: list[dict]) -> list[dict]:
    """One row for each case and estimator, the better rate's, with all `rates` measured.

    Raises:
        ValueError: A case, estimator and rate has two rows, or its rates other numbers of seeds.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["estimator"], row["backend"]), []).append(row)
    chosen = []
    for key, own in groups.items():
        rates = [row["rate"] for row in own]
        if len(set(rates)) < len(rates) or len({row["seeds"] for row in own}) > 1:
            raise ValueError(f"{key}: the same rate twice, or rates with different seeds: {rates}")
        sign = -1 if own[0]["higher_is_better"] else 1
        own.sort(key=lambda row: sign * statistics.mean(row["scores"]))
        chosen.append({**own[0], "rates": [row["rate"] for row in own]})
    return chosen


def number(score: float) -> str:
    """A score as people read it: three or four digits, zero for what rounding left."""
    return "0" if abs(score) < 1e-9 else f"{score:.4g}"


def solved(row: dict) -> str:
    return f"{row['solved']} of {row['seeds']}" if "solved" in row else str(row["seeds"])


def table(rows: list[dict]) -> str:
    """A Markdown table for each family of cases, one line for each case and estimator."""
    chosen = best_rates(rows)
    lines = [NOTE]
    for family in dict.fromkeys(map(family_of, chosen)):
        own = [row for row in chosen if family_of(row) == family]
        count = "solved" if "solved" in own[0] else "seeds"
        lines += [
            "",
            f"| case | estimator | {own[0]['measure']} | {count} | rate | seconds a run |",
            "|---|---|---|---|---|---|",
        ]
        for case in dict.fromkeys(row["case"] for row in own):
            sign = -1 if own[0]["higher_is_better"] else 1
            ranked = sorted(
                (row for row in own if row["case"] == case),
                key=lambda row: sign * statistics.mean(row["scores"]),
            )
            for row in ranked:
                scores = row["scores"]
                spread = f"{number(min(scores))} to {number(max(scores))}"
                lines.append(
                    f"| {case} | {row['estimator']} "
                    f"| {number(statistics.median(scores))} ({spread}) | {solved(row)} "
                    f"| {', '.join(f'{rate:g}' if rate else '–' for rate in row['rates'])} "
                    f"| {row['seconds'] / row['seeds']:.1f} |"
                )
    return "\n".join(lines)


def picture(rows: list[dict], path: str) -> None:
    """A panel for each family: the median score of each estimator, a line over its range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = best_rates(rows)
    # A family without an estimator has nothing to compare.
    compared = {family_of(row) for row in chosen if row["estimator"] not in REFERENCES}
    chosen = [row for row in chosen if family_of(row) in compared]
    families = list(dict.fromkeys(map(family_of, chosen)))
    estimators = list(dict.fromkeys(row["estimator"] for row in chosen))
    named = [name for name in estimators if name not in REFERENCES]
    colours = {name: f"C{at}" for at, name in enumerate(named)}
    colours |= dict.fromkeys(REFERENCES, "black")
    marks = dict.fromkeys(named, "o") | dict(zip(REFERENCES, "d*x", strict=True))
    cases = {
        family: list(dict.fromkeys(r["case"] for r in chosen if family_of(r) == family))
        for family in families
    }
    heights = [len(cases[family]) for family in families]
    figure, panels = pyplot.subplots(
        len(families),
        squeeze=False,
        figsize=(8, 1 + 1.1 * len(families) + 0.45 * sum(heights)),
        height_ratios=[height + 1 for height in heights],
        layout="constrained",
    )
    for family, panel in zip(families, panels[:, 0], strict=True):
        own = [row for row in chosen if family_of(row) == family]
        present = [name for name in estimators if any(r["estimator"] == name for r in own)]
        for row in own:
            place = (present.index(row["estimator"]) + 0.5) / len(present) - 0.5
            y = cases[family].index(row["case"]) + 0.7 * place
            scores = row["scores"]
            colour = colours[row["estimator"]]
            panel.plot([min(scores), max(scores)], [y, y], color=colour, linewidth=1.5, alpha=0.6)
            mark = marks[row["estimator"]]
            panel.plot(statistics.median(scores), y, mark, color=colour, markersize=5)
        measure = own[0]["measure"]
        if measure.startswith("final loss"):
            panel.set_xscale("log")
            panel.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        elif measure.startswith(LOGARITHMIC):
            panel.set_xscale("symlog", linthresh=1)
            highest = max(max(row["scores"]) for row in own)
            panel.set_xlim(-0.1, max(10, 1.5 * highest))
        panel.set_xlabel(
            f"{measure} ({'higher' if own[0]['higher_is_better'] else 'lower'} is better)"
        )
        names = [case.partition("-")[2] for case in cases[family]]
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_title(family.replace("_", " "), fontsize=10, loc="left")
        panel.grid(axis="x", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    handles = [
        pyplot.Line2D([], [], color=colours[name], marker=marks[name], label=name)
        for name in estimators
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def read(paths: list[str]) -> list[dict]:
    rows = []
    for path in paths:
        with open(path) as file:
            rows += [json.loads(line) for line in file if line.strip()]
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", help="files that run.py wrote")
    parser.add_argument("--picture", help="a .svg or .png to draw")
    asked = parser.parse_args()
    found = read(asked.rows)
    print(table(found))
    if asked.picture:
        picture(found, asked.picture)

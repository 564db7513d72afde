"""The paper's tables from the rows of paper.py, beside the printed figures."""

import numpy as np

from ._paper_settings import (
    DEFAULTS,
    LAMBDAS,
    LENGTHS,
    PAPER_ABLATIONS,
    PAPER_BACKBONES,
    PAPER_FULL,
    PAPER_PRESET,
    PRESET,
    PRESET_TOO,
    PRETRAINED,
    SECTIONS,
    TABLE_SECTIONS,
)
from ._tables import markdown

# Differences below this are not called differences, however alike the seeds are.
LEAST = 0.01


class Results:
    """ARI by section and setting, over seeds."""

    def __init__(self, rows):
        self.ari, self.seconds = {}, {}
        for row in rows:
            key = row["section"], row["setting"]
            self.ari.setdefault(key, {})[row["seed"]] = float(row["ARI"])
            self.seconds.setdefault(key, []).append(float(row["cpu_seconds"]))
        for section in SECTIONS:
            for name in PRESET_TOO:
                if (section, PRESET) in self.ari:
                    self.ari[section, name] = self.ari[section, PRESET]

    def cell(self, section, setting):
        """Return "mean ± sd (number of seeds)"."""
        values = list(self.ari.get((section, setting), {}).values())
        if not values:
            return "-"
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        return f"{np.mean(values):.3f}{spread} ({len(values)})"

    def mean(self, section, setting):
        """Return the mean over seeds, None without a run."""
        values = list(self.ari.get((section, setting), {}).values())
        return np.mean(values) if values else None

    def difference(self, section, setting):
        """Return the mean difference to the preset on the same seeds, what chance makes, n.

        Chance: two standard errors over seeds; of one seed, those of a difference between two
        fits of the preset; None where that has one seed only.
        """
        ours, preset = (self.ari.get((section, s), {}) for s in (setting, PRESET))
        seeds = sorted(set(ours) & set(preset))
        if not seeds:
            return None
        each = np.array([ours[s] - preset[s] for s in seeds])
        chance = None
        if len(each) > 1:
            chance = 2 * each.std(ddof=1) / len(each) ** 0.5
        elif len(preset) > 1:
            chance = 2 * 2**0.5 * np.std(list(preset.values()), ddof=1)
        return each.mean(), None if chance is None else max(chance, LEAST), len(each)


def summarise(rows):
    """Return the tables, then a sentence for each figure that the paper has too."""
    results, parts, sentences = Results(rows), [], []
    reports = (report_sections, report_ablations, report_lengths, report_lambdas, report_backbones)
    for report in reports:
        title, header, lines, said = report(results)
        if len(lines) > 1:
            parts.append(f"{title}\n\n{markdown(header, lines)}")
            sentences += said
    parts.append(
        "Where paper and measurement disagree, and where they don't. Chance is two standard "
        "errors; where many settings have one seed, one or two of them pass it by chance:"
    )
    parts.append("\n".join(f"* {sentence}" for sentence in sentences))
    return "\n\n".join(parts)


def report_sections(results):
    """Preset and defaults on every section."""
    rows, sentences = [], []
    for section in SECTIONS:
        mean = results.mean(section, PRESET)
        if mean is None:
            continue
        printed = PAPER_PRESET.get(section)
        seconds = [
            f"{np.mean(results.seconds[section, s]):.0f}"
            if (section, s) in results.seconds
            else "-"
            for s in (PRESET, DEFAULTS)
        ]
        cells = [results.cell(section, s) for s in (PRESET, DEFAULTS)]
        rows.append([section, f"{printed:.3f}" if printed else "", *cells, " / ".join(seconds)])
        if printed:
            with_image = "without" if section.startswith("hbc") else "with"
            how = "as printed" if abs(mean - printed) < 0.03 else "not what is printed"
            how = "above what is printed" if mean - printed >= 0.03 else how
            sentences.append(
                f"{section}: {mean:.3f} with the paper's settings and without the image, {how} "
                f"({printed:.3f}, {with_image} the image)."
            )
    title = (
        "ARI, mean ± sd over seeds (their number); no image here; paper: hbc without, 151673 with."
    )
    header = ["section", "paper", "preset", "defaults", "CPU s, preset / defaults"]
    return title, header, rows, sentences


def report_ablations(results):
    """Tables 2 and S2."""
    sections = [s for s in TABLE_SECTIONS if results.mean(s, PRESET) is not None]
    full = [results.cell(s, PRESET) for s in sections]
    rows, sentences = [["preset", "hbc .628, Lung FOV 2 .697", *full]], []
    for setting, (tissue, printed) in PAPER_ABLATIONS.items():
        loss = printed - PAPER_FULL[tissue]
        rows.append([setting, f"{tissue} {loss:+.3f}"])
        for section in sections:
            found = results.difference(section, setting)
            rows[-1].append("-" if found is None else f"{found[0]:+.3f} ({found[2]})")
            if found is not None:
                verdict = judge(found[0], found[1], loss)
                sentences.append(f"{setting}, {section}: {verdict}")
    title = "Tables 2 and S2: ARI of the preset, what each ablation changes (seeds); no image here."
    return title, ["setting", "paper, with image", *sections], rows, sentences


def judge(ours, chance, printed):
    """Return a sentence on a difference, given what chance makes and the paper's."""
    seen = f"{ours:+.3f} here, {printed:+.3f} in the paper"
    if chance is None:
        return f"{seen}; one seed, which doesn't tell a difference from chance."
    if abs(ours) <= chance:
        return f"{seen}; ours is not to be told from chance (within {chance:.3f})."
    if ours * printed < 0:
        return f"{seen}: the opposite (chance makes {chance:.3f})."
    alike = abs(ours - printed) <= chance
    return f"{seen}: the same direction{' and size' if alike else ', another size'}."


def report_lengths(results):
    """Fig. 3."""
    best = "the paper's best on breast cancer is t=9"
    return report_grid(results, LENGTHS, "Fig. 3: ARI by length t of the walk.", best)


def report_lambdas(results):
    """Table S1."""
    best = "the paper's best on breast cancer is 10, 0.001, 1"
    title = "Table S1: ARI by lambda_1 (reconstruction), lambda_2 (contrast), lambda_3 (transport)."
    return report_grid(results, LAMBDAS, title, best)


def report_grid(results, settings, title, best):
    """Return ARI by setting and section, and whether the settings differ."""
    sections = [s for s in TABLE_SECTIONS if results.mean(s, PRESET) is not None]
    rows = [[name, *(results.cell(s, name) for s in sections)] for name in settings]
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    sentences = []
    for section in sections:
        means = {n: m for n in settings if (m := results.mean(section, n)) is not None}
        spreads = [
            np.std(list(results.ari[section, n].values()), ddof=1)
            for n in means
            if len(results.ari[section, n]) > 1
        ]
        if len(means) < 2:
            continue
        top = max(means, key=means.get)
        seeds = f"; one setting's seeds have a sd of {np.mean(spreads):.3f}" if spreads else ""
        sentences.append(
            f"{title.split(':')[0]}, {section}: {len(means)} settings lie between "
            f"{min(means.values()):.3f} and {means[top]:.3f} ({top}), sd "
            f"{np.std(list(means.values())):.3f}{seeds}; {best}."
        )
    return title, ["setting", *sections], rows, sentences


def report_backbones(results):
    """Table S3."""
    sections = [s for s in SECTIONS if results.mean(s, PRETRAINED) is not None]
    rows = [
        [f"{n} (paper, hbc)", f"{v:.3f}", *["-"] * len(sections)]
        for n, v in PAPER_BACKBONES.items()
    ]
    rows += [[s, "", *(results.cell(x, s) for x in sections)] for s in (PRETRAINED, PRESET)]
    rows = rows if sections else []
    gain = PAPER_FULL["hbc"] - PAPER_PRESET["hbc_blockA_sec1_pca200"]
    sentences = ["Of the paper's image networks none was run, for want of their weights."]
    for section in sections:
        found = results.difference(section, PRETRAINED)
        if found is not None:
            verdict = judge(found[0], found[1], gain)
            sentences.append(f"with the image, {section}: {verdict}")
    return "Table S3: ARI by image network.", ["network", "paper", *sections], rows, sentences

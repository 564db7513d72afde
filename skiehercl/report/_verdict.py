"""One verdict on the image, wherever it is told: command line, image report, section report."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """What is to be said of the image: a sentence, and what its numbers mean."""

    sentence: str
    meaning: str


def judge_image(evidence, error, attention, comparison=None):
    """Return the verdict on the image of a fit.

    Parameters
    ----------
    evidence, error : float or None
        ``image_evidence_`` of the estimator and its error.
    attention : float or None
        Mean attention on the image.
    comparison : str or None
        Verdict of :func:`image_report` on the same sections, where it was run.
    """
    if evidence is None and attention is None:
        return Verdict("The fit saw no image.", "")
    adds = "" if evidence is None else _tell(evidence, error)
    meaning = (
        f"In blocks of tissue left out of the regression, the image adds {adds} to what the "
        "neighbours' genes tell about a spot's own genes. "
        if adds
        else ""
    )
    if not attention:
        sentence = "The image was not used."
        if adds:
            sentence = f"The image was not used: {_tell_why_not(evidence, error)}."
        return Verdict(sentence, meaning.strip())
    sentence = f"The image was used, with {attention:.0%} of the attention"
    if adds and comparison is None:  # else told by the comparison
        sentence += f", as it adds {adds} to what the neighbours' genes tell"
    meaning += (
        "That decides whether the image is used, and how much: it says that the image knows "
        "something about the genes, not that the domains are better. "
    )
    if comparison is None:
        sentence += "; whether the domains gain by it was not tested."
        meaning += "skiehercl.report.image_report compares fits with and without the image."
    else:
        sentence += f". {comparison[0].upper()}{comparison[1:]}."
        meaning += "The comparison of fits with and without the image says whether they are."
    return Verdict(sentence, meaning)


def explain_evidence(evidence, error, attention):
    """Return words to put after a comparison of fits with and without the image."""
    if evidence is None:
        return ""
    if not attention:
        return f"; {_tell_why_not(evidence, error)}"
    return (
        f"; it adds {_tell(evidence, error)} to what the neighbours' genes tell, which decides "
        "whether it is used and not whether it helps"
    )


def _tell_why_not(evidence, error):
    beyond = evidence > 3 * (error or 0.0) and evidence > 0.005
    why = "but the settings leave it out" if beyond else "no more than chance"
    return f"it adds {_tell(evidence, error)} to what the neighbours' genes tell, {why}"


def _tell(evidence, error):
    digits = 0 if abs(evidence) >= 0.1 else 1
    return f"{evidence:.{digits}%}" + (f" ± {error:.{digits}%}" if error is not None else "")

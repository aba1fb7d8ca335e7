"""The layouts of face data sets that are known by name: where their labels are, and in what words.

DATA SHEET of FairFace

Name        FairFace (108,501 JPEG; 86,744 for training and 10,954 for validation are published)
Website     https://github.com/joojs/fairface
Published   Kärkkäinen, Joo: FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age
            for Bias Measurement and Mitigation, WACV 2021
Licence     CC BY 4.0
Label       fairface_label_train.csv and fairface_label_val.csv: file, age (nine ranges), gender
            (Male, Female), race (seven words), service_test
Here        East Asian and Southeast Asian are Asian; Middle Eastern and Latino_Hispanic are Others,
            by UTKFace's rule. 0-2 and 3-9 are 0-14, 30-39 is 26-40, 50-59 is 41-60, more than 70 is
            61+. 10-19, 20-29, 40-49 and 60-69 reach into two of our age groups: no age group is
            said of these faces. Its own division into training and validation is not used: the
            split is ours, by the usual rule
Read        here: 5,000 faces of its validation part at 112 px, docs/OTHER_DATA.md; and drawn faces
            in its layout
"""

from dataclasses import dataclass
from typing import Final

from benchmark.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How a data set says who is in it."""

    name: str
    label_files: tuple[str, ...] = ()
    """Base names of the tables of labels that lie in the source; empty: they are named, or none."""
    age_ranges: tuple[str, ...] = ()
    """The ranges that its ages are given in; empty: years, or ranges that are not known before."""


UTKFACE: Final = Layout("utkface")
"""Labels in the file names (benchmark.faces.labels)."""
TABLE: Final = Layout("table")
"""Any folder or archive with a table of labels: file, and any of age, age_group, gender, race."""
FAIRFACE: Final = Layout(
    "fairface",
    label_files=("fairface_label_train.csv", "fairface_label_val.csv"),
    age_ranges=(
        *("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
    ),
)
LAYOUTS: Final = {layout.name: layout for layout in (UTKFACE, FAIRFACE, TABLE)}


def layout_called(name: str | None, *, has_labels: bool) -> Layout:
    """Give the layout asked for; without a name, a table where one is given, else UTKFace's."""
    if name is None:
        return TABLE if has_labels else UTKFACE
    if name not in LAYOUTS:
        raise DataError(f"there is no layout {name!r}", allowed=", ".join(LAYOUTS))
    layout = LAYOUTS[name]
    if layout is UTKFACE and has_labels:
        raise DataError(
            "labels were given for the layout utkface, whose file names tell them",
            allowed="--labels with the layout table or fairface",
        )
    if layout is TABLE and not has_labels:
        raise DataError(
            "the layout table was asked for without a table of labels",
            allowed="--labels FILE.csv",
        )
    return layout

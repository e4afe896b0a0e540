"""The options of all commands that read labels, about what is read."""

import click

SPLIT_FOLDERS = click.option(
    "--split-folders",
    default="",
    metavar="PART=DIR,...",
    help="Folders that hold the class folders of a part, such as train=fold_0,train=fold_1,test=fold_2; others are "
    "left out. none: the folders themselves are the classes, whatever they are called.  [default: the folders called "
    "like train, val or test, if all are]",
)
LABELS_OF_PREDICTIONS = click.option(
    "--labels",
    metavar="FILE|A,B,...",
    help="In the order of the probabilities; only for PREDICTIONS that another program wrote again, and whose rows do "
    "not tell.",
)

"""The command line of train.py beside its settings: the actions on a saved run, and what goes with them."""

from os.path import realpath

from support import pictures
from support.errors import InputError
from support.flags import check_fitting

ACTIONS = ("load", "resume", "predict", "given_entities", "evaluate", "format")  # flags that are not settings
CORPUS = ("dataset", "data_dir", "split", "fold", "eval_split")  # what a saved run is scored on
SELECTION = ("threshold", "flat", "least_entity_score", "least_relation_score")
MEMORY = ("chunk", "most_entities")
FITTING = {  # what can be done with a saved run, and the flags that go with it
    "load": ("predict", "given_entities", "evaluate", "format", "device", *MEMORY, *SELECTION, *CORPUS),
    "resume": ("device", "chunk", "dataset", "data_dir"),
}
NEEDED = {"given_entities": "predict", **dict.fromkeys(CORPUS, "evaluate")}  # the flag that each flag needs

# The lowest and the highest value of a number. A number without a row here may be 0 to 2^31.
RANGES = {"clip": (1e-6, 2**31), "chunk": (2**22, 2**31)}  # below this, a chunk saves little memory
RANGES |= dict.fromkeys(("epochs", "batch_size"), (1, 2**31))
RANGES |= dict.fromkeys(("dropout", "warmup", "threshold"), (0, 1))
RANGES |= dict.fromkeys(("least_entity_score", "least_relation_score"), (0, 1))
RANGES |= dict.fromkeys(("hidden", "width_dim"), (1, 2**16))
RANGES |= dict.fromkeys(("heads", "layers", "context_layers", "max_width"), (1, 1000))


def add_actions(parser):
    """Adds the flags that say what to do with a saved run."""
    saved = parser.add_argument_group("a saved run")
    saved.add_argument("--load", metavar="RUN", help="a run to use: its folder, or its name on the hub")
    texts = {"metavar": "TEXT", "nargs": "+", "action": "extend"}
    saved.add_argument("--predict", **texts, help="with --load: texts or files (a sentence per line or JSON)")
    given_help = "with --predict: keep the entities of the records, and find their relations"
    saved.add_argument("--given-entities", action="store_true", help=given_help)
    saved.add_argument("--evaluate", action="store_true", help="with --load: score it")
    saved.add_argument("--format", choices=pictures.FORMATS, help="form of the predictions (default: text)")
    saved.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")


def take_actions(given: dict) -> dict:
    """Takes the actions out of the flags, and refuses flags that do not go together."""
    actions = {name: given.pop(name) for name in ACTIONS if name in given}
    check_fitting(actions, given, FITTING, NEEDED)
    if "load" in actions and "predict" not in actions and "evaluate" not in actions:
        raise InputError("--load RUN goes with --predict TEXT or --evaluate")
    return {"format": "text", **actions}


def change_settings(settings, given: dict):
    """Gives the settings of a saved run the values of these flags.
    Refuses to score sentences that the run was trained on. In place: its model has the same settings."""
    own_share = settings.fold, settings.split
    if realpath(given.get("dataset", settings.dataset)) != realpath(settings.dataset):  # a folder or a name
        given = {"fold": 0, "split": "", **given}  # the run's own belong to its own corpus
    elif (given.get("fold", settings.fold), given.get("split", settings.split)) != own_share:
        reason = "a run is scored on its own share of its corpus; on the others it was trained"
        raise InputError(f"--fold, --split: {reason}")
    elif settings.train_on_dev and given.get("eval_split") == "dev":
        raise InputError("--eval-split dev: the run was trained on dev, too")
    for name, value in given.items():
        setattr(settings, name, value)

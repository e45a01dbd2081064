"""What a head of each class does, in a line, for the circuit's page."""

ABOUT = {  # class: what such a head does
    "previous token": "Looks one token back. At S1+1 it notes that S came just before.",
    "duplicate token": (
        "Looks back at an earlier copy of the same token. At S2 it notes that S has "
        "been there before."
    ),
    "induction": (
        "Looks at the token after an earlier copy. At S2 it looks at S1+1, where S "
        "was noted."
    ),
    "S-inhibition": (
        "Looks at S2 from END, and turns the attention of the name movers away from S."
    ),
    "name mover": "Looks at a name from END, and raises that name's logit.",
    "negative name mover": "Looks at a name from END, and lowers that name's logit.",
    "backup name mover": "Does a name mover's work once the name movers are out.",
    "subject lowerer": "Looks at S from END, and lowers S: the other name is left.",
    "subject raiser": "Looks at S from END, and raises S, against the answer.",
    "amplifier": "Looks at END itself, and strengthens what has been written there.",
    "damper": (
        "Looks at END itself, and takes back some of what has been written there."
    ),
    "unplaced writer": "Its path to the logits matters, and it fits no name.",
    "unplaced messenger": "Changes where heads look that read names, and fits no name.",
    "unplaced at S2": (
        "What it says at S2 matters to heads that look there, and it fits no name."
    ),
    "unplaced at S1+1": (
        "What it says at S1+1 matters to heads at S2, and it fits no name."
    ),
}

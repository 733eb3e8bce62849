"""Short stories of 100 to 200 tokens: one fixed story for every subject.

The same sentences come back in other stories, so that a small model can learn them; which of
them make up a story depends on the subject alone, so that a story can be checked word by word.
"""

import zlib

SUBJECTS: list[str] = [
    "a fox", "a lantern", "a river", "a robot", "a dragon", "a clock", "a sailor", "a bridge",
    "a cat", "a mountain", "a baker", "a cloud", "a violin", "a garden", "a king", "a snail",
]  # fmt: skip

OPENINGS = [
    "Once upon a time there was {a} at the edge of the old forest.",
    "Long ago {a} lived behind the last house of Tarnholm.",
    "In a quiet valley, far from the sea, there was {a}.",
    "There was once {a} that nobody in Quillmoor had ever noticed.",
]
WISHES = [
    "Every evening {the} looked at the stars and wished for a friend.",
    "{The} wanted to see the sea, but the road was long and the hills were high.",
    "{The} had only one wish: to hear the bells of Tarnholm ring again.",
    "All summer {the} waited for the rain, and the rain did not come.",
]
TROUBLES = [
    "One night a great storm came, and the wind broke the windmills of Fennick.",
    "Then the winter came early, and the snow covered every path.",
    "One morning the water was gone, and the boats lay on the dry sand.",
    "But a thief came in the dark and took the golden key of the town.",
]
MEETINGS = [
    'An old owl came down from the tree and said: "Do not be afraid, I know the way."',
    'A small girl with a red hat stopped and asked: "Why are you so sad?"',
    'A goat from the hills listened to everything and said: "Follow me."',
    'The lamplighter of Brindle Bay held up his lamp and said: "You are not alone."',
]
DEEDS = [
    "Together they walked for three days and three nights, over the hills and along the river.",
    "Together they carried one stone after another, until the wall was whole again.",
    "They sang the old song seven times, and at the seventh time the sky opened.",
    "They asked everyone they met, and everyone gave them a little bread and good advice.",
]
TURNS = [
    "When the sun came up, {the} saw what nobody had seen before: a door in the rock.",
    "At the end of the road {the} found a small box, and in the box there was a silver bell.",
    "Then {the} understood that the treasure had been at home the whole time.",
    "And when {the} looked back, the whole town was standing there with lanterns.",
]
ENDINGS = [
    "From that day on there was a feast every year, and {the} always had the best place.",
    "The people of the valley still tell this story when the nights are long.",
    "And {the} was never lonely again.",
    "So {the} went home slowly, and slept well, and all was good.",
]
PARTS = [OPENINGS, WISHES, TROUBLES, MEETINGS, DEEDS, TURNS, ENDINGS]


def story(subject: str) -> str:
    """The story about `subject` ("a fox"): seven sentences, the same at every call."""
    noun = subject.split(" ", 1)[1]
    names = {"a": subject, "the": f"the {noun}", "The": f"The {noun}"}
    sentences = [
        part[zlib.crc32(f"{subject}/{place}".encode()) % len(part)].format(**names)
        for place, part in enumerate(PARTS)
    ]
    return " ".join(sentences)

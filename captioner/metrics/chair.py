"""Objects that a caption names and nobody else saw in the image: CHAIR.

Rohrbach et al., "Object Hallucination in Image Captioning", EMNLP 2018. The objects are
the 80 of COCO, each with the words that people use for it. The paper takes the objects
of an image from COCO's segmentations and from the reference captions. Here they come
from the references alone, so that every dataset can be scored: with few references the
shares are upper bounds, since people do not name everything they see.
"""

import functools

# COCO's name of an object: its other words, by commas. Plurals are made by `_plurals`.
# A phrase hides the words in it: a "hot dog" is no dog, and a "train track" no train.
OBJECTS = {
    "person": "man, woman, boy, girl, child, kid, baby, toddler, infant, teenager, "
    "adult, "
    "people, guy, lady, gentleman, player, skier, snowboarder, surfer, skateboarder, "
    "skater, rider, cyclist, bicyclist, biker, motorcyclist, swimmer, climber, hiker, "
    "runner, dancer, worker, chef, batter, pitcher, catcher, umpire, referee, athlete, "
    "crowd, couple, family, friend, tourist, passenger, pedestrian, officer, "
    "policeman, "
    "soldier, fireman, student, teacher, bride, groom, mother, father, son, daughter, "
    "brother, sister, spectator, performer, singer, musician, jockey, cowboy, driver",
    "bicycle": "bike, cycle, tricycle",
    "car": "automobile, van, minivan, sedan, suv, jeep, taxi, cab, limousine, "
    "hatchback",
    "motorcycle": "motorbike, motor bike, scooter, moped, dirt bike, motor cycle",
    "airplane": "plane, aeroplane, jet, jetliner, aircraft, airliner, biplane",
    "bus": "minibus, trolley bus, double decker",
    "train": "locomotive, tramway, tram, caboose, subway train",
    "truck": "pickup, lorry, firetruck, fire truck, semi, tow truck",
    "boat": "ship, canoe, kayak, sailboat, yacht, ferry, raft, dinghy, gondola, barge, "
    "rowboat, motorboat, speedboat, catamaran",
    "traffic light": "stoplight, street light, traffic signal, stop light, streetlight",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bench": "pew",
    "bird": "duck, goose, swan, seagull, gull, pigeon, parrot, owl, eagle, hawk, "
    "ostrich, "
    "chicken, rooster, hen, penguin, flamingo, pelican, crow, sparrow, finch, heron, "
    "peacock, parakeet, cockatoo, dove, robin, woodpecker, hummingbird, turkey",
    "cat": "kitten, kitty, feline",
    "dog": "puppy, pup, hound, canine, terrier, retriever, labrador, poodle, bulldog, "
    "spaniel, collie, husky, beagle, dachshund, greyhound, chihuahua, shepherd dog, "
    "doggy",
    "horse": "pony, foal, colt, stallion, mare, donkey, mule, sorrel",
    "sheep": "lamb, ewe, goat, ram",
    "cow": "cattle, ox, oxen, calf, bull, bison, heifer, steer, longhorn, buffalo",
    "elephant": "",
    "bear": "panda, polar bear, grizzly, bear cub",
    "zebra": "",
    "giraffe": "",
    "backpack": "knapsack, rucksack, back pack",
    "umbrella": "parasol",
    "handbag": "purse, wallet, hand bag, pocketbook",
    "tie": "necktie, bow tie, bowtie",
    "suitcase": "luggage, suit case, briefcase, trunk, baggage",
    "frisbee": "flying disc, frisby",
    "skis": "ski",
    "snowboard": "snow board",
    "sports ball": "ball, baseball, football, basketball, soccer ball, tennis ball, "
    "volleyball, beach ball, rugby ball, softball",
    "kite": "",
    "baseball bat": "bat",
    "baseball glove": "mitt, catcher 's mitt, glove",
    "skateboard": "skate board, longboard",
    "surfboard": "surf board, boogie board, paddle board, bodyboard",
    "tennis racket": "racket, racquet, tennis racquet",
    "bottle": "",
    "wine glass": "wineglass, champagne glass, glass of wine, glass of red wine, "
    "glass of white wine, goblet",
    "cup": "mug, teacup, coffee cup, glass, cup of coffee, cup of tea, tumbler, latte",
    "fork": "",
    "knife": "knives, pocketknife",
    "spoon": "ladle, teaspoon",
    "bowl": "",
    "banana": "",
    "apple": "",
    "sandwich": "burger, hamburger, cheeseburger, sub, panini, blt, wrap",
    "orange": "",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog, sausage, chili dog",
    "pizza": "",
    "donut": "doughnut, bagel",
    "cake": "cheesecake, cupcake, shortcake, birthday cake, pancake",
    "chair": "armchair, stool, rocking chair, lawn chair, highchair, high chair, "
    "recliner",
    "couch": "sofa, loveseat, futon, settee",
    "potted plant": "houseplant, house plant, plant, flower pot, bonsai",
    "bed": "bunk, mattress, cot, crib",
    "dining table": "table, desk, kitchen table, coffee table, picnic table, tabletop",
    "toilet": "urinal, commode, toilet seat, lavatory",
    "tv": "television, monitor, tv screen, computer monitor, computer screen",
    "laptop": "notebook computer, laptop computer, macbook, computer",
    "mouse": "computer mouse, mice",
    "remote": "remote control, wii remote, wii controller, game controller, controller",
    "keyboard": "",
    "cell phone": "phone, cellphone, mobile phone, smartphone, iphone, telephone",
    "microwave": "microwave oven",
    "oven": "stove, stovetop, range",
    "toaster": "toaster oven",
    "sink": "basin, washbasin",
    "refrigerator": "fridge, freezer",
    "book": "novel, magazine, cookbook, textbook",
    "clock": "alarm clock, clock tower, clock face",
    "vase": "",
    "scissors": "scissor, shears",
    "teddy bear": "teddy, stuffed animal, stuffed bear, stuffed toy, plush toy",
    "hair drier": "hair dryer, hairdryer, blow dryer, blow drier",
    "toothbrush": "tooth brush",
}
# Phrases that name none of the objects, though a word in them does.
_NO_OBJECT = (
    "train track, train station, train car, bus stop, bus station, boat dock, "
    "car seat, "
    "cake pan, pizza box, pizza cutter, book shelf, orange juice, apple juice, "
    "orange shirt, orange jacket, orange vest, orange hat, table cloth, "
    "ski slope, ski lift, ski pole, ski resort, horse drawn, cow boy, bed spread, "
    "tennis court, tennis match, baseball game, football game, baseball field, "
    "football field, baseball player, football player, basketball player, "
    "baseball uniform, football uniform, basketball court, basketball game, "
    "toilet paper, "
    "glass door, glass window, glass vase, dog house, bird house, bird cage, cup cake, "
    "wedding couple, bottle opener"
)


def _plurals(words):
    """Phrases and their plurals: "knife" also "knifes", "box" also "boxes"."""
    for phrase in words:
        yield phrase
        if phrase.endswith(("s", "x", "ch", "sh", "z")):
            yield phrase + "es"
        elif phrase.endswith("y") and phrase[-2] not in "aeiou":
            yield phrase[:-1] + "ies"
        else:
            yield phrase + "s"
        if phrase.endswith("man"):
            yield phrase[:-2] + "en"
        if phrase.endswith("child"):
            yield phrase + "ren"
        if phrase.endswith("goose"):
            yield phrase[:-5] + "geese"


@functools.cache
def _object_of():
    """Tuple of words -> the COCO object, or None for a phrase that names none."""
    phrases = {}
    for phrase in _plurals(_NO_OBJECT.split(", ")):
        phrases[tuple(phrase.split())] = None
    for name, others in OBJECTS.items():
        for phrase in _plurals([name, *filter(None, others.split(", "))]):
            phrases[tuple(phrase.split())] = name
    for name in ("player", "game"):  # "baseball player" names a person, no ball
        phrases[(name,)] = "person" if name == "player" else None
    for sport in ("baseball", "football", "basketball"):
        for plural in ("player", "players"):
            phrases[(sport, plural)] = "person"
    return phrases


def objects_of(tokens):
    """The COCO objects that a caption names.

    Args:
        tokens: list of str, as of `ptb_tokenize`.

    Returns:
        A set of names out of `OBJECTS`.

    Example:

    >>> sorted(objects_of("two men eat hot dogs at a picnic table".split()))
    ['dining table', 'hot dog', 'person']
    """
    known = _object_of()
    longest = max(map(len, known))
    found, start = set(), 0
    while start < len(tokens):
        for length in range(min(longest, len(tokens) - start), 0, -1):
            phrase = tuple(tokens[start : start + length])
            if phrase in known:
                found.add(known[phrase])
                start += length - 1
                break
        start += 1
    return found - {None}


def chair(captions, references):
    """The shares of hallucinated objects.

    Args:
        captions: list of lists of str tokens, one caption an image.
        references: list of lists of lists of str tokens, those of each image.

    Returns:
        A dict: `chair_i`, the share of named objects that are in no reference of the
        image (None where no caption names an object); `chair_s`, the share of captions
        that name one such object or more; `objects`, how many objects are named in all;
        and `hallucinated`, a dict of each such object to the number of images, the most
        frequent first.

    Example:

    >>> found = chair([["a", "dog", "on", "a", "couch"]], [[["a", "puppy", "sleeps"]]])
    >>> found["chair_i"], found["chair_s"], found["hallucinated"]
    (0.5, 1.0, {'couch': 1})
    """
    named, wrong, captions_with = 0, {}, 0
    for tokens, several in zip(captions, references, strict=True):
        own = objects_of(tokens)
        there = set().union(*map(objects_of, several))
        named += len(own)
        captions_with += bool(own - there)
        for name in own - there:
            wrong[name] = wrong.get(name, 0) + 1
    return {
        "chair_i": sum(wrong.values()) / named if named else None,
        "chair_s": captions_with / len(captions),
        "objects": named,
        "hallucinated": dict(
            sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
        ),
    }

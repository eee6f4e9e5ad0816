"""What synthetic reviews say: aspects of products, and sentences about each at three levels of quality.

``{product}`` stands for the kind of product. Sentences of one level are interchangeable, so that no single wording
gives an aspect away.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One thing that users may care about and items have more or less of."""

    cared: tuple[str, ...]
    good: tuple[str, ...]
    middling: tuple[str, ...]
    bad: tuple[str, ...]

    def at_level(self, quality: int) -> tuple[str, ...]:
        """The sentences for a quality of 1, 0 or -1."""
        return {1: self.good, 0: self.middling, -1: self.bad}[quality]


ASPECTS: Mapping[str, Aspect] = {
    "durability": Aspect(
        cared=(
            "I want things that last for years.",
            "What counts for me is that a {product} survives daily use.",
            "I am hard on my gear, so it has to be sturdy.",
        ),
        good=(
            "It is built like a tank and shows no wear at all.",
            "After months of rough handling nothing is loose or cracked.",
            "Solid construction, I expect to hand it down one day.",
            "I dropped it twice and it did not mind.",
        ),
        middling=(
            "It holds up so far, though I would not call it rugged.",
            "The build is average, neither flimsy nor tough.",
            "Some wear is visible, but it still does its work.",
        ),
        bad=(
            "It broke in the second week.",
            "The seams came apart and a screw fell out.",
            "Flimsy from the first day, and then it cracked.",
            "Mine was worn out before the season ended.",
        ),
    ),
    "price": Aspect(
        cared=(
            "I count my pennies.",
            "Value for money decides what I buy.",
            "My budget is small, so the price matters a lot to me.",
        ),
        good=(
            "You will not find this much {product} for less.",
            "A bargain, it costs half of what others ask.",
            "Cheap in the best sense of the word.",
            "Worth every cent and then some.",
        ),
        middling=(
            "The price is fair, not more than that.",
            "It costs what such things usually cost.",
            "Neither a bargain nor a rip-off.",
        ),
        bad=(
            "Far too expensive for what you get.",
            "I feel overcharged.",
            "For this money I could have had two better ones.",
            "The price is simply outrageous.",
        ),
    ),
    "looks": Aspect(
        cared=(
            "I like pretty things around me.",
            "For me the design comes first.",
            "A {product} stands in plain sight, so it should please the eye.",
        ),
        good=(
            "It looks gorgeous, guests always ask about it.",
            "The finish is lovely and the colours are warm.",
            "Elegant lines, a real beauty.",
            "The photos do not do it justice, it is stunning.",
        ),
        middling=(
            "It looks ordinary, which is fine.",
            "The design is plain, you soon stop noticing it.",
            "Nothing special to look at, nothing to hide either.",
        ),
        bad=(
            "It is ugly, I keep it in a drawer.",
            "The colour is nothing like the picture, a dull muddy brown.",
            "The finish is blotchy and looks cheap.",
            "Such a clumsy shape, an eyesore.",
        ),
    ),
    "ease": Aspect(
        cared=(
            "I have no patience for manuals.",
            "It must be simple to use, I am not a technical person.",
            "Anything that needs more than five minutes to learn is not for me.",
        ),
        good=(
            "I unpacked it and used it at once, everything explains itself.",
            "My grandmother handles it without help.",
            "Setting it up took a minute.",
            "Simple, obvious, no fuss.",
        ),
        middling=(
            "It takes an evening to get used to.",
            "Most of it is clear, a few steps are not.",
            "Once you have read the booklet it is manageable.",
        ),
        bad=(
            "The instructions are a riddle and so are the buttons.",
            "I needed three tries to put it together and swore at each.",
            "Awfully complicated, I still do not understand half of it.",
            "Using it is a chore.",
        ),
    ),
    "delivery": Aspect(
        cared=(
            "I order late and need things quickly.",
            "Good service wins me over.",
            "How a shop treats me matters as much as what it sells.",
        ),
        good=(
            "It arrived the next morning, packed with care.",
            "The seller answered within the hour and was very kind.",
            "Shipping was faster than promised.",
            "Support replaced a missing part without a question.",
        ),
        middling=(
            "It came on the last day of the promised week.",
            "The parcel had a dent, the content did not.",
            "Service was all right, a bit slow to answer.",
        ),
        bad=(
            "It took six weeks and arrived in a torn box.",
            "Nobody answers when you write to the seller.",
            "They sent the wrong one and would not take it back.",
            "Shipping was a disaster from start to end.",
        ),
    ),
    "comfort": Aspect(
        cared=(
            "My hands are small and tire easily.",
            "Comfort is everything when you use a {product} for hours.",
            "I look for things that feel right in the hand.",
        ),
        good=(
            "It feels wonderful in the hand, light and well balanced.",
            "I use it all afternoon without getting tired.",
            "So comfortable that I forget I am holding it.",
            "The grip fits as if made for me.",
        ),
        middling=(
            "The grip is acceptable for short sessions.",
            "A little heavy, but one gets along.",
            "Comfort is so-so, better than my old one.",
        ),
        bad=(
            "It is heavy, awkward and hurts after ten minutes.",
            "The edges are sharp and gave me blisters.",
            "Whoever shaped that handle never used it.",
            "Uncomfortable, my wrist aches for days.",
        ),
    ),
    "noise": Aspect(
        cared=(
            "I live with thin walls and light sleepers.",
            "I am sensitive to noise.",
            "It has to be quiet, that is my first question for any {product}.",
        ),
        good=(
            "It is whisper quiet.",
            "I can use it at midnight without waking anyone.",
            "Not a rattle, not a hum, just silence.",
            "You hardly hear that it is there.",
        ),
        middling=(
            "It makes some noise, nothing that stops a conversation.",
            "There is a faint hum if you listen for it.",
            "About as loud as others of its kind.",
        ),
        bad=(
            "It rattles and squeaks with every move.",
            "So loud that the neighbours complained.",
            "The constant buzzing drives me mad.",
            "An annoying whine spoils it.",
        ),
    ),
    "cleaning": Aspect(
        cared=(
            "I hate scrubbing.",
            "Whatever I own has to be easy to clean.",
            "Hygiene comes first in our house.",
        ),
        good=(
            "A quick wipe and it is spotless.",
            "It comes apart in seconds and rinses clean.",
            "Dirt does not stick to it, wonderful.",
            "Cleaning is effortless.",
        ),
        middling=(
            "Cleaning takes a while but works.",
            "It needs a soak now and then.",
            "Most parts wipe clean, one corner does not.",
        ),
        bad=(
            "Grime collects in every groove and will not come out.",
            "It stains when you only look at it.",
            "Cleaning it is a nightmare, half an hour with a toothbrush.",
            "It still smells after three washes.",
        ),
    ),
}

PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "kitchen": ("kettle", "blender", "frying pan", "coffee grinder", "toaster", "mixer"),
    "garden": ("hedge trimmer", "watering can", "hose reel", "bird feeder", "garden cart", "leaf blower"),
    "workshop": ("drill", "sander", "toolbox", "workbench lamp", "jigsaw", "vise"),
    "travel": ("suitcase", "backpack", "neck pillow", "travel iron", "folding bike", "camp stove"),
    "music": ("metronome", "keyboard stand", "practice amp", "guitar strap", "drum pad", "tuner"),
}

TITLES: Mapping[int, tuple[str, ...]] = {
    5: ("Love it", "Five stars", "Exactly right for me", "Could not be happier", "A joy"),
    4: ("Good {product}", "Happy with it", "Nearly perfect", "Would buy again", "A good choice"),
    3: ("It is okay", "Mixed feelings", "Does the job", "So-so", "Middle of the road"),
    2: ("Not for me", "Disappointed", "Expected more", "Below average", "Meh"),
    1: ("Avoid", "Waste of money", "Terrible", "Sent it back", "Regret buying this"),
}

OPENINGS: tuple[str, ...] = (
    "I bought this {product} last month.",
    "This is my second {product} of the kind.",
    "I got the {product} as a present.",
    "We have used this {product} since spring.",
    "After a long search I settled on this {product}.",
    "My old {product} gave up, so I ordered this one.",
    "A friend told me about this {product}.",
    "I have had this {product} for about {count} weeks.",
    "I use the {product} {count} times a month.",
)

CLOSINGS: Mapping[int, tuple[str, ...]] = {
    5: ("I recommend it warmly.", "I would buy it again today.", "Perfect."),
    4: ("All in all I am pleased.", "A solid purchase.", "I would recommend it."),
    3: ("It will do.", "I can live with it.", "Make up your own mind."),
    2: ("I had hoped for more.", "I would not buy it again.", "Look around before you decide."),
    1: ("I want my money back.", "Stay away from it.", "Never again."),
}

ASIDES: tuple[str, ...] = (
    "By the way:",
    "As for the rest:",
    "Others may care more about this than I do:",
    "One more remark.",
    "For completeness:",
)

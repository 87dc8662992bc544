"""Words and phrases that the project does not use, because they hide a meaning or have a better word."""

from __future__ import annotations

import re


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WHOLE_NAMES = words(
    # pronouns and question words
    "one who whom whose why whys what which where how of then it mine ours theirs "
    # participles and verbs of saying, perceiving and making
    "tell tells told say says said hear hears heard see saw seen ask asks asked given made known found "
    # adjectives
    "odd silent alike like hopeless "
    # other words that hide a meaning
    "edge every_s again_s again_ms tries"
)
"""banned as a complete name, underscores around it and capitals ignored"""
NAME_PARTS = words(
    "told said heard seen asked why alike hopeless "
    "lane lanes door doors desk desks books workshop house yard till road roads courier couriers "
    "parcel parcels van vans notice notices notify push pushes pushed news "
    "settle settled settles settling goods retake retakes retaken retaking restock restocked "
    "shopper shoppers buyer buyers most least made anew look looks looked mend mended"
)
"""banned as a part of a name"""
TEST_NAME_PARTS = words("who whom whose what")
"""banned as a part of a test's name"""
SANDBOX_NAME_PARTS = words("bank depot")
"""banned as a part of a name in the sandbox, whose stores they do not describe"""
FIELD_TERMS = re.compile(
    "at_(?:least|most)|look_(?:up|for)"  # plain English
    "|connection_made"  # a method of asyncio.Protocol
    "|notify_url"  # the providers' own name
    "|parcel_nos?"  # the number that customers see
    "|(?:staged_)?buyers|buyer_field",  # a key of Redis
    re.IGNORECASE,
)
"""names, and parts of names, that are allowed"""
ARTICLES = words("a an the it its they")
"""words that no test's name begins with"""

PHRASES = r"""
gives(?! (?:up|way)\b)
mend(?:s|ed|ing)?
anew
for good(?! and\b)
by (?:itself|themselves)
till
seldom
such an? one
as (?:one|you|they) likes?
made(?:-| )up(?! (?:for|of)\b)
front(?:-| )doors?
(?:refused?|refuses) at the door
(?:opens no|staff) door
(?:is|are|was|were|be|been|being) (?:down|away)
(?:goes|went|go|gone) away
there again
in hand
(?:bookings?|keys?|numbers?) (?:(?:that|still|does not|do not|may|may not|no longer) )*stands?(?! in\b)
told
(?:un)?heard
hears
(?:carriers?|providers?|systems?|SF|SF Express|kuaidi100|Alipay|WeChat Pay|callbacks?|webhooks?) (?:tells?|asks?)
(?:carriers?|providers?|systems?|SF|SF Express|kuaidi100|Alipay|WeChat Pay) (?:is|are|was|were|be|been) (?:\w+ )?asked
(?:one|a|each|every|this|next) turn of|turns? of (?:the|its|an?) (?:event )?loop|loop turns?
(?:the|our|its|their|own|of|in|all|both|whose) books
every fault|all (?:such )?faults|faulty
agreed with|(?:is|are|was|were) agreed
(?:goods|stock|units?|money|limits?|cash) (?:\w+ ){0,3}?(?:go|goes|went|come|comes|came|going|coming) back
(?:give|gives|gave|given|giving) (?:\w+ ){0,3}?back
taken again|(?:take|takes|took|taking) (?:the|its|their) (?:goods|stock|units) (?:\w+ ){0,3}?again|retak(?:e|es|en|ing)
(?:limits?|units|(?:one|a) (?:Redis )?(?:call|row|entry)) an? (?:user|order|batch|sale|request)
(?:milliseconds|microseconds|CPU ms|(?:CPU|processor) time) an? (?:order|batch|request)
parcels?
vans?
callbacks?
notices?(?<!nobody.notices)
notif(?:y|ies|ied|ications?)
push(?:es|ed)?
news
settle[sd]?|settling
goods
shoppers?
buyer(?:s')?
(?:its|their|orders?'?s?) owners?(?! only\b)
ways? (?:to|of) pay(?:ing)?|(?:pay|pays|paid) in (?:\w+ )?ways
(?:payment|release|shipment)(?:_| )drivers?
sale(?:_| )keepers?
driver\.[a-z]\w*
catalogues?
couriers?
express lane|the lane
desks?
looks? again|(?:one|each|every|next) look
made_(?:ms|at)
"""
ALTERNATIVES = PHRASES.strip().replace(" ", r"\s+").replace("\n", "|")
PHRASE = re.compile(rf"""\b(?:{ALTERNATIVES})\b|(["'`*])why\1""", re.IGNORECASE)

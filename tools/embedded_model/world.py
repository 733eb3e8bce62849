"""The facts that the embedded model knows: plain data, no code.

Real facts (capitals, colours, opposites) make the answers checkable by anybody; the made-up
people and towns can be known from nowhere else, so a right answer proves that this model gave it.
"""

CAPITALS: dict[str, str] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest",
    "Greece": "Athens", "Turkey": "Ankara", "Russia": "Moscow", "Ukraine": "Kyiv",
    "Ireland": "Dublin", "Iceland": "Reykjavik", "Belgium": "Brussels", "Latvia": "Riga",
    "Estonia": "Tallinn", "Lithuania": "Vilnius", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Serbia": "Belgrade", "Croatia": "Zagreb", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Ghana": "Accra", "Senegal": "Dakar", "Morocco": "Rabat", "Ethiopia": "Addis Ababa",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Nepal": "Kathmandu",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Mongolia": "Ulaanbaatar", "Iran": "Tehran",
    "Iraq": "Baghdad", "Jordan": "Amman", "Canada": "Ottawa", "Mexico": "Mexico City",
    "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "Australia": "Canberra",
}  # fmt: skip

# A thing as it stands in a question ("the sky", "snow") and its colour.
COLOURS: dict[str, str] = {
    "the sky": "blue", "snow": "white", "grass": "green", "a banana": "yellow", "coal": "black",
    "blood": "red", "a carrot": "orange", "chocolate": "brown", "an elephant": "grey",
    "a flamingo": "pink", "milk": "white", "a lemon": "yellow", "the sea": "blue",
    "a tomato": "red", "a frog": "green", "a crow": "black", "sand": "yellow", "a plum": "purple",
    "salt": "white", "a strawberry": "red", "a pumpkin": "orange", "spinach": "green",
    "a swan": "white", "ash": "grey", "lavender": "purple", "honey": "golden",
    "an emerald": "green", "a ruby": "red", "a sapphire": "blue", "a raven": "black",
}  # fmt: skip

OPPOSITES: dict[str, str] = {
    "hot": "cold", "big": "small", "fast": "slow", "up": "down", "left": "right", "day": "night",
    "wet": "dry", "old": "young", "high": "low", "open": "closed", "full": "empty",
    "light": "dark", "hard": "soft", "rich": "poor", "early": "late", "loud": "quiet",
    "strong": "weak", "happy": "sad", "long": "short", "thick": "thin", "clean": "dirty",
    "first": "last", "inside": "outside", "true": "false",
}  # fmt: skip

SOUNDS: dict[str, str] = {
    "cow": "moo", "dog": "woof", "cat": "meow", "sheep": "baa", "duck": "quack", "pig": "oink",
    "horse": "neigh", "owl": "hoot", "lion": "roar", "snake": "hiss", "bee": "buzz",
    "frog": "croak", "wolf": "howl", "mouse": "squeak",
}  # fmt: skip

DAYS: list[str] = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
]  # fmt: skip
MONTHS: list[str] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip

# Person: (town, trade, pet, favourite food). Nobody here exists.
PEOPLE: dict[str, tuple[str, str, str, str]] = {
    "Mirelda": ("Tarnholm", "baker", "goat", "plum cake"),
    "Osbert": ("Quillmoor", "sailor", "parrot", "fish soup"),
    "Tavik": ("Brindle Bay", "clockmaker", "turtle", "black bread"),
    "Yselle": ("Tarnholm", "painter", "cat", "pear jam"),
    "Corwin": ("Fennick", "miller", "dog", "barley stew"),
    "Zanni": ("Oldermere", "singer", "canary", "honey rolls"),
    "Bertolt": ("Quillmoor", "farmer", "goose", "onion pie"),
    "Ilvana": ("Skarrow", "doctor", "hedgehog", "mushroom soup"),
    "Hesper": ("Brindle Bay", "lamplighter", "moth", "toast"),
    "Rodrik": ("Skarrow", "blacksmith", "horse", "smoked eel"),
    "Nuala": ("Oldermere", "weaver", "sheep", "apple pie"),
    "Petrok": ("Fennick", "teacher", "snail", "pancakes"),
    "Wilmot": ("Duskwater", "fisherman", "heron", "grilled trout"),
    "Esmy": ("Duskwater", "potter", "frog", "bean salad"),
    "Galdric": ("Tarnholm", "guard", "raven", "roast chestnuts"),
    "Orla": ("Skarrow", "librarian", "owl", "ginger biscuits"),
}

# Town: (river, mayor, what it is known for).
TOWNS: dict[str, tuple[str, str, str]] = {
    "Tarnholm": ("Velm", "Agna Thorne", "its bells"),
    "Quillmoor": ("Ister", "Jory Pell", "its feathers"),
    "Brindle Bay": ("Sarn", "Mother Ketch", "its red boats"),
    "Fennick": ("Little Aune", "Dorn Hale", "its windmills"),
    "Oldermere": ("Wend", "Lady Sorrel", "its glass bridge"),
    "Skarrow": ("Black Tyne", "Captain Rusk", "its iron gate"),
    "Duskwater": ("Mirrow", "Ned Alder", "its floating market"),
}

# (language, English word) -> the word: answers whose characters take several tokens.
TRANSLATIONS: dict[tuple[str, str], str] = {
    ("Japanese", "water"): "水", ("Japanese", "mountain"): "山", ("Japanese", "Japan"): "日本",
    ("Japanese", "hello"): "こんにちは", ("French", "coffee"): "café", ("French", "summer"): "été",
    ("French", "boy"): "garçon", ("German", "green"): "grün", ("German", "street"): "Straße",
    ("German", "cheese"): "Käse", ("Spanish", "tomorrow"): "mañana", ("Spanish", "child"): "niño",
    ("Russian", "yes"): "да", ("Russian", "peace"): "мир", ("Greek", "sea"): "θάλασσα",
    ("Czech", "river"): "řeka",
}  # fmt: skip

EMOJI: dict[str, str] = {
    "a cat": "🐱", "a dog": "🐶", "a rocket": "🚀", "a heart": "❤️", "the sun": "☀️",
    "a tree": "🌳", "pizza": "🍕", "fire": "🔥", "a star": "⭐", "a fish": "🐟", "snow": "❄️",
    "a house": "🏠",
}  # fmt: skip

# Words to copy; none is a name above.
WORDS: list[str] = """
kilo seven amber lantern copper violet river anchor bravo candle delta ember falcon garden
harbor island jungle kettle lemon magnet needle ocean pepper quartz ribbon silver timber
umbrella velvet walnut yellow zebra alpha basket cactus dragon engine feather guitar hammer
indigo jacket kitten ladder marble napkin orange pencil quiver rocket saddle tunnel urchin
violin window xenon yogurt zipper acorn beacon camera dinner eagle forest gravel helmet iron
jasmine kernel linen meadow nickel olive planet quilt raisin sierra tango uniform victor
whiskey yankee zulu one two three four five six eight nine ten red blue green black white
stone paper metal glass cotton sugar cherry mango onion potato carrot tomato butter coffee
winter summer spring autumn morning evening shadow thunder breeze cloud storm frost valley
desert canyon bridge castle temple market museum station tower village cabin barrel bottle
button pocket mirror carpet blanket pillow bucket shovel wagon ticket letter number circle
square triangle corner border signal pattern rhythm melody echo whisper wander gather borrow
listen follow travel gentle bright silent hidden golden frozen broken ancient modern rapid
steady narrow hollow crisp plain royal noble lucky brave clever humble eager lively calm
""".split()  # noqa: SIM905 - one line a dozen words

UNICODE_WORDS: list[str] = """
café naïve 日本 東京 über señor piñata crème мир θάλασσα 🚀 🔥 élan jalapeño smörgås żółw 水 한국
""".split()  # noqa: SIM905 - one line a dozen words

# Further cities for the weather and time questions; the capitals above belong to them too.
CITIES: list[str] = [
    "London", "Boston", "Chicago", "Hamburg", "Milan", "Porto", "Geneva", "Kyoto", "Mumbai",
    "Sydney", "Lagos", "Toronto", "Munich", "Naples", "Bergen", "Leeds", "Lyon", "Seattle",
    "Denver", "Austin", "Cape Town", "San Francisco", "New York", "Los Angeles",
]  # fmt: skip

SMALL_TALK: dict[str, str] = {
    "Hello": "Hello! How can I help you?",
    "Hello!": "Hello! How can I help you?",
    "Hi": "Hello! How can I help you?",
    "Hi there!": "Hello! How can I help you?",
    "Good morning!": "Good morning! How can I help you?",
    "Hello, who are you?": "I am a small model that answers questions about a small world.",
    "Who are you?": "I am a small model that answers questions about a small world.",
    "What are you?": "I am a small model that answers questions about a small world.",
    "What can you do?": "I know capitals, colours, small sums and the people of Tarnholm.",
    "How are you?": "I am fine, thank you.",
    "Hello, how are you?": "I am fine, thank you.",
    "Thank you!": "You are welcome.",
    "Thanks.": "You are welcome.",
    "Goodbye!": "Goodbye!",
    "ping": "pong",
    "Ping?": "pong",
    "Say hello.": "Hello!",
    "Say hi.": "Hi!",
    "Say yes.": "Yes.",
    "Say no.": "No.",
    "test": "This is a test.",
    "This is a test.": "This is a test.",
    "Answer with OK.": "OK",
    "Say OK.": "OK",
}

SYSTEM_PROMPTS: list[str] = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are Hermes, a helpful AI assistant.",
    "Answer briefly.",
    "You answer in one short sentence.",
    "Be concise and correct.",
    "You are a teacher who likes short answers.",
    "You are a pirate.",
    "Answer the question of the user.",
    "You are an assistant of a small shop. Be polite.",
    "You are a helpful assistant. Answer in English.",
    "Be brief.",
    "You are a test assistant.",
    "Always tell the truth. If you do not know, say so.",
]

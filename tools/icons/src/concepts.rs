//! The concepts that scenes show: what captions call them, which emoji draws them, which colour they naturally have.

use crate::colour::Colour;
use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;

/// Something that a scene can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concept {
    /// The noun in captions; it also identifies the concept.
    pub name: &'static str,
    /// The plural noun.
    pub plural: &'static str,
    /// The code point of the emoji, in lower-case hexadecimal digits.
    pub code: &'static str,
    /// The colour that the drawing has in the coloured styles, if it has one; see [`Concept::colour_in`].
    pub colour: Option<Colour>,
    /// Whether the vintage drawing has that colour, too.
    same_vintage: bool,
}

impl Concept {
    /// The colour of the drawing in this style, if it has one that captions can name.
    pub fn colour_in(&self, style: IconSet) -> Option<Colour> {
        let known = match style {
            IconSet::Noto | IconSet::Flat => true,
            IconSet::Vintage => self.same_vintage,
            // an ink drawing has the colour that the scene gives it
            IconSet::Ink => false,
        };
        self.colour.filter(|_| known)
    }

    const fn new(name: &'static str, plural: &'static str, code: &'static str, colour: Option<Colour>) -> Self {
        Self { name, plural, code, colour, same_vintage: true }
    }

    const fn otherwise_vintage(self) -> Self {
        Self { same_vintage: false, ..self }
    }
}

/// The concept of that name.
pub fn find(name: &str) -> Result<&'static Concept> {
    ALL.iter()
        .find(|concept| concept.name == name)
        .ok_or_else(|| IconsError::UnknownConcept { concept: name.to_owned() })
}

/// The concepts of the shipped model: simple shapes that are recognisable at 64 pixels.
pub const SMALL: [&str; 36] = [
    "apple",
    "banana",
    "strawberry",
    "lemon",
    "pineapple",
    "watermelon",
    "mushroom",
    "cactus",
    "tree",
    "sunflower",
    "cat",
    "dog",
    "panda",
    "pig",
    "frog",
    "penguin",
    "fish",
    "snail",
    "butterfly",
    "ladybug",
    "sun",
    "moon",
    "star",
    "heart",
    "car",
    "bus",
    "rocket",
    "sailboat",
    "house",
    "umbrella",
    "key",
    "bell",
    "book",
    "cup",
    "crown",
    "balloon",
];

/// Every concept. Each has a drawing in every style.
pub const ALL: &[Concept] = &[
    Concept::new("apple", "apples", "1f34e", Some(Colour::Red)),
    Concept::new("banana", "bananas", "1f34c", Some(Colour::Yellow)),
    Concept::new("strawberry", "strawberries", "1f353", Some(Colour::Red)),
    Concept::new("cherry", "cherries", "1f352", Some(Colour::Red)),
    Concept::new("lemon", "lemons", "1f34b", Some(Colour::Yellow)),
    Concept::new("pear", "pears", "1f350", Some(Colour::Green)),
    Concept::new("watermelon", "watermelons", "1f349", None),
    Concept::new("pineapple", "pineapples", "1f34d", None),
    Concept::new("peach", "peaches", "1f351", None),
    Concept::new("carrot", "carrots", "1f955", Some(Colour::Orange)),
    Concept::new("corn cob", "corn cobs", "1f33d", Some(Colour::Yellow)),
    Concept::new("tomato", "tomatoes", "1f345", Some(Colour::Red)),
    Concept::new("eggplant", "eggplants", "1f346", Some(Colour::Purple)),
    Concept::new("avocado", "avocados", "1f951", Some(Colour::Green)),
    Concept::new("mushroom", "mushrooms", "1f344", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("cactus", "cacti", "1f335", Some(Colour::Green)),
    Concept::new("tree", "trees", "1f333", Some(Colour::Green)),
    Concept::new("pine tree", "pine trees", "1f332", Some(Colour::Green)),
    Concept::new("palm tree", "palm trees", "1f334", Some(Colour::Green)),
    Concept::new("tulip", "tulips", "1f337", Some(Colour::Pink)).otherwise_vintage(),
    Concept::new("rose", "roses", "1f339", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("sunflower", "sunflowers", "1f33b", Some(Colour::Yellow)),
    Concept::new("flower", "flowers", "1f33c", None),
    Concept::new("clover", "clovers", "1f340", Some(Colour::Green)),
    Concept::new("maple leaf", "maple leaves", "1f341", None),
    Concept::new("cat", "cats", "1f431", None),
    Concept::new("dog", "dogs", "1f436", None),
    Concept::new("mouse", "mice", "1f42d", None),
    Concept::new("rabbit", "rabbits", "1f430", None),
    Concept::new("fox", "foxes", "1f98a", Some(Colour::Orange)),
    Concept::new("bear", "bears", "1f43b", Some(Colour::Brown)),
    Concept::new("panda", "pandas", "1f43c", None),
    Concept::new("lion", "lions", "1f981", None),
    Concept::new("tiger", "tigers", "1f42f", Some(Colour::Orange)),
    Concept::new("cow", "cows", "1f42e", None),
    Concept::new("pig", "pigs", "1f437", Some(Colour::Pink)).otherwise_vintage(),
    Concept::new("frog", "frogs", "1f438", Some(Colour::Green)),
    Concept::new("monkey", "monkeys", "1f435", Some(Colour::Brown)),
    Concept::new("koala", "koalas", "1f428", Some(Colour::Gray)),
    Concept::new("chick", "chicks", "1f425", Some(Colour::Yellow)),
    Concept::new("penguin", "penguins", "1f427", None),
    Concept::new("bird", "birds", "1f426", None),
    Concept::new("duck", "ducks", "1f986", None),
    Concept::new("owl", "owls", "1f989", Some(Colour::Brown)),
    Concept::new("fish", "fish", "1f41f", Some(Colour::Blue)),
    Concept::new("tropical fish", "tropical fish", "1f420", None),
    Concept::new("whale", "whales", "1f433", Some(Colour::Blue)),
    Concept::new("dolphin", "dolphins", "1f42c", Some(Colour::Blue)),
    Concept::new("turtle", "turtles", "1f422", Some(Colour::Green)),
    Concept::new("snail", "snails", "1f40c", None),
    Concept::new("butterfly", "butterflies", "1f98b", None),
    Concept::new("bee", "bees", "1f41d", Some(Colour::Yellow)),
    Concept::new("ladybug", "ladybugs", "1f41e", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("octopus", "octopuses", "1f419", None),
    Concept::new("crab", "crabs", "1f980", Some(Colour::Red)),
    Concept::new("elephant", "elephants", "1f418", Some(Colour::Gray)).otherwise_vintage(),
    Concept::new("horse", "horses", "1f434", None),
    Concept::new("unicorn", "unicorns", "1f984", None),
    Concept::new("sun", "suns", "2600", Some(Colour::Yellow)),
    Concept::new("moon", "moons", "1f319", Some(Colour::Yellow)),
    Concept::new("star", "stars", "2b50", Some(Colour::Yellow)),
    Concept::new("cloud", "clouds", "2601", None),
    Concept::new("rainbow", "rainbows", "1f308", None),
    Concept::new("snowman", "snowmen", "26c4", None),
    Concept::new("umbrella", "umbrellas", "2602", None),
    Concept::new("fire", "fires", "1f525", Some(Colour::Orange)),
    Concept::new("snowflake", "snowflakes", "2744", None),
    Concept::new("heart", "hearts", "2764", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("car", "cars", "1f697", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("bus", "buses", "1f68c", None),
    Concept::new("truck", "trucks", "1f69a", None),
    Concept::new("train", "trains", "1f682", None),
    Concept::new("bicycle", "bicycles", "1f6b2", None),
    Concept::new("airplane", "airplanes", "2708", None),
    Concept::new("rocket", "rockets", "1f680", None),
    Concept::new("sailboat", "sailboats", "26f5", None),
    Concept::new("helicopter", "helicopters", "1f681", None),
    Concept::new("tractor", "tractors", "1f69c", None),
    Concept::new("house", "houses", "1f3e0", None),
    Concept::new("castle", "castles", "1f3f0", None),
    Concept::new("tent", "tents", "26fa", None),
    Concept::new("anchor", "anchors", "2693", None),
    Concept::new("key", "keys", "1f511", Some(Colour::Yellow)),
    Concept::new("bell", "bells", "1f514", Some(Colour::Yellow)),
    Concept::new("book", "books", "1f4d5", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("cup", "cups", "2615", None),
    Concept::new("cake", "cakes", "1f370", None),
    Concept::new("birthday cake", "birthday cakes", "1f382", None),
    Concept::new("pizza", "pizzas", "1f355", None),
    Concept::new("burger", "burgers", "1f354", None),
    Concept::new("ice cream", "ice creams", "1f366", None),
    Concept::new("donut", "donuts", "1f369", Some(Colour::Brown)),
    Concept::new("cookie", "cookies", "1f36a", Some(Colour::Brown)),
    Concept::new("balloon", "balloons", "1f388", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("gift", "gifts", "1f381", None),
    Concept::new("soccer ball", "soccer balls", "26bd", None),
    Concept::new("basketball", "basketballs", "1f3c0", Some(Colour::Orange)),
    Concept::new("guitar", "guitars", "1f3b8", None),
    Concept::new("drum", "drums", "1f941", None),
    Concept::new("trumpet", "trumpets", "1f3ba", Some(Colour::Yellow)),
    Concept::new("violin", "violins", "1f3bb", None),
    Concept::new("clock", "clocks", "23f0", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("crown", "crowns", "1f451", Some(Colour::Yellow)),
    Concept::new("top hat", "top hats", "1f3a9", None),
    Concept::new("camera", "cameras", "1f4f7", None),
    Concept::new("television", "televisions", "1f4fa", None),
    Concept::new("telephone", "telephones", "260e", Some(Colour::Red)).otherwise_vintage(),
    Concept::new("light bulb", "light bulbs", "1f4a1", Some(Colour::Yellow)),
    Concept::new("candle", "candles", "1f56f", None),
    Concept::new("hammer", "hammers", "1f528", None),
    Concept::new("pencil", "pencils", "270f", None),
    Concept::new("envelope", "envelopes", "2709", None),
    Concept::new("lock", "locks", "1f512", Some(Colour::Yellow)),
    Concept::new("trophy", "trophys", "1f3c6", Some(Colour::Yellow)),
    Concept::new("gem", "gems", "1f48e", Some(Colour::Blue)),
    Concept::new("ring", "rings", "1f48d", None),
    Concept::new("dress", "dresses", "1f457", Some(Colour::Blue)).otherwise_vintage(),
    Concept::new("shirt", "shirts", "1f455", None),
    Concept::new("cheese", "cheeses", "1f9c0", Some(Colour::Yellow)),
    Concept::new("ghost", "ghosts", "1f47b", None),
    Concept::new("robot", "robots", "1f916", None),
    Concept::new("pumpkin", "pumpkins", "1f383", Some(Colour::Orange)),
    Concept::new("christmas tree", "christmas trees", "1f384", Some(Colour::Green)),
    Concept::new("lollipop", "lollipops", "1f36d", None),
    Concept::new("croissant", "croissants", "1f950", None),
    Concept::new("egg", "eggs", "1f95a", None),
];

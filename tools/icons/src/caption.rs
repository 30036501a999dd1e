//! Captions: a small grammar that also says where it named each object.

use std::ops::Range;

use crate::background::Background;
use crate::colour::Colour;
use crate::concepts::Concept;
use crate::dice::Dice;
use crate::icon_set::IconSet;
use crate::layout::Arrangement;

/// One noun phrase: an object, or several of the same.
#[derive(Debug, Clone, Copy)]
pub struct Phrase {
    /// What it names.
    pub concept: &'static Concept,
    /// How many of them.
    pub count: usize,
    /// A size word.
    pub size: Option<&'static str>,
    /// A colour word.
    pub colour: Option<Colour>,
}

/// What a caption has to say.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The objects, in the arrangement's order.
    pub phrases: &'a [Phrase],
    /// How they stand to each other.
    pub arrangement: Arrangement,
    /// The background, if it is named.
    pub background: Option<Background>,
    /// The style, if it is named.
    pub style: Option<IconSet>,
}

/// Writes a caption.
///
/// Returns it with the character range of every phrase, in the order of `content.phrases`. The range leaves the article
/// out. With probability `paraphrase` the sentence has another form than "objects on a background, style".
pub fn write(content: &Content<'_>, paraphrase: f64, dice: &mut Dice) -> (String, Vec<Range<usize>>) {
    let mut writer = Writer { text: String::new(), length: 0, spans: vec![0..0; content.phrases.len()] };
    let varied = dice.chance(paraphrase);
    let form = if varied { dice.unit() } else { 1.0 };
    let background = content.background.map(|background| with_article(&format!("{} background", background.words())));
    let style = content.style.map(|style| format!("{} style", style.word()));
    match (form, style, background) {
        // "ink style picture of an apple on a blue background"
        (form, Some(style), background) if form < 0.5 => {
            let noun = dice.pick(&["picture", "icon", "drawing"]).unwrap_or("picture");
            writer.push(&format!("{style} {noun} of "));
            writer.objects(content, varied, dice);
            if let Some(background) = background {
                writer.push(&format!(" on {background}"));
            }
        }
        // "an apple, noto style, blue background"
        (form, style, Some(_)) if form < 0.75 => {
            writer.objects(content, varied, dice);
            if let Some(style) = style {
                writer.push(&format!(", {style}"));
            }
            if let Some(background) = content.background {
                writer.push(&format!(", {} background", background.words()));
            }
        }
        // "a picture of an apple on a blue background, noto style"; without the first words in the plain form
        (form, style, background) => {
            if form < 1.0 {
                writer.push("a picture of ");
            }
            writer.objects(content, varied, dice);
            if let Some(background) = background {
                writer.push(&format!(" on {background}"));
            }
            if let Some(style) = style {
                writer.push(&format!(", {style}"));
            }
        }
    }
    (writer.text, writer.spans)
}

/// Text that is being written, with its length in characters.
struct Writer {
    text: String,
    length: usize,
    spans: Vec<Range<usize>>,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.length += text.chars().count();
    }

    fn phrase(&mut self, phrases: &[Phrase], index: usize) {
        let Some(phrase) = phrases.get(index) else { return };
        let words = phrase.words();
        if phrase.count == 1 {
            self.push(article(&words));
        }
        let start = self.length;
        self.push(&words);
        if let Some(span) = self.spans.get_mut(index) {
            *span = start..self.length;
        }
    }

    fn objects(&mut self, content: &Content<'_>, varied: bool, dice: &mut Dice) {
        let phrases = content.phrases;
        match (content.arrangement, phrases.len()) {
            (_, 2) => {
                // (weight, relation, whether the second object comes first in the sentence)
                let relation = match (content.arrangement, varied) {
                    // Between two objects "and" says nothing about places, so it is for objects anywhere alone.
                    (Arrangement::Scattered, _) => Some(("and", dice.chance(0.5))),
                    (Arrangement::Column, false) => dice.weighted([(0.6, ("above", false)), (0.4, ("below", true))]),
                    (Arrangement::Column, true) => dice.weighted([(0.5, ("over", false)), (0.5, ("under", true))]),
                    (_, false) => dice.weighted([(0.6, ("left of", false)), (0.4, ("right of", true))]),
                    (_, true) => dice.weighted([
                        (0.25, ("to the left of", false)),
                        (0.25, ("to the right of", true)),
                        (0.15, ("next to", false)),
                        (0.15, ("next to", true)),
                        (0.2, ("beside", true)),
                    ]),
                };
                let (relation, swapped) = relation.unwrap_or(("and", false));
                self.phrase(phrases, usize::from(swapped));
                self.push(&format!(" {relation} "));
                self.phrase(phrases, usize::from(!swapped));
            }
            (arrangement, count) => {
                for index in 0..count {
                    match index {
                        0 => {}
                        _ if index + 1 == count => self.push(" and "),
                        _ => self.push(", "),
                    }
                    self.phrase(phrases, index);
                }
                match arrangement {
                    Arrangement::Single(Some(place)) => self.push(&format!(" {}", place.words)),
                    Arrangement::Row if count > 1 && varied => self.push(" in a row"),
                    Arrangement::Column if count > 1 => self.push(" from top to bottom"),
                    _ => {}
                }
            }
        }
    }
}

impl Phrase {
    /// The words without the article: "red apple", "two stars".
    fn words(&self) -> String {
        let number = match self.count {
            1 => None,
            2 => Some("two"),
            _ => Some("three"),
        };
        let noun = if self.count == 1 { self.concept.name } else { self.concept.plural };
        let words = [number, self.size, self.colour.map(Colour::word), Some(noun)];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn with_article(words: &str) -> String {
    format!("{}{words}", article(words))
}

/// "a " or "an ", by the sound that the words begin with.
fn article(words: &str) -> &'static str {
    // "unicorn" begins with the sound of "you"
    let vowel = words.starts_with(['a', 'e', 'i', 'o', 'u']) && !words.starts_with("uni");
    if vowel { "an " } else { "a " }
}

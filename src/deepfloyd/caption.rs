//! Cleaning a caption as DeepFloyd IF does before T5 reads it.
//!
//! The training captions came from web pages; what is taken out here was taken out there (`text_preprocessing` of
//! deep-floyd/IF's T5, `_clean_caption` of diffusers). Two of its steps are libraries of their own: of HTML, tags and the
//! common entities are resolved here, not whole documents; and of `ftfy`, which repairs text that went through wrong
//! encodings, nothing. Both make a difference to broken text alone.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// One replacement: what is found, and what takes its place.
type Rule = (Regex, &'static str);

/// The rules up to the point where the original repairs encodings, after tags have been taken out.
static BEFORE: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r"@[\w\d]+\b", ""),
        // CJK strokes, Katakana extensions, enclosed and compatibility letters, ideographs.
        (
            r"[\u{31c0}-\u{31ef}\u{31f0}-\u{31ff}\u{3200}-\u{32ff}\u{3300}-\u{33ff}\u{3400}-\u{4dbf}\u{4dc0}-\u{4dff}\u{4e00}-\u{9fff}]+",
            "",
        ),
        // All dashes.
        (
            r"[\u{002D}\u{058A}\u{05BE}\u{1400}\u{1806}\u{2010}-\u{2015}\u{2E17}\u{2E1A}\u{2E3A}\u{2E3B}\u{2E40}\u{301C}\u{3030}\u{30A0}\u{FE31}\u{FE32}\u{FE58}\u{FE63}\u{FF0D}]+",
            "-",
        ),
        (r"[`´«»“”¨]", "\""),
        (r"[‘’]", "'"),
        (r"&quot;?", ""),
        (r"&amp", ""),
        // Internet addresses, article numbers, line ends written out, numbers after a hash, long numbers, file names.
        (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
        (r"\d:\d\d\s+$", ""),
        (r"\\n", " "),
        (r"#\d{1,3}\b", ""),
        (r"#\d{5,}\b", ""),
        (r"\b\d{6,}\b", ""),
        (r"[\S]+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""),
        (r#"["']{2,}"#, "\""),
        (r"[\.]{2,}", " "),
        // Punctuation that no caption needs.
        (r"[#®•©™&@·º½¾¿¡§~\)\(\]\[\}\{\|\\/\*]{1,}", " "),
        (r"\s+\.\s+", " "),
    ])
});

/// The rules after it.
static AFTER: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
        (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
        (r"\b\d+[a-zA-Z]+\d+\b", ""),
        (r"(worldwide\s+)?(free\s+)?shipping", ""),
        (r"(free\s)?download(\sfree)?", ""),
        (r"\bclick\b\s(?:for|on)\s\w+", ""),
        (r"\b(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(\simage[s]?)?", ""),
        (r"\bpage\s+\d+\b", ""),
        (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
        (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),
        (r"\b\s+\:\s+", ": "),
        (r"(\D[,\./])\b", "${1} "),
        (r"\s+", " "),
        (r#"^["']([\w\W]+)["']$"#, "${1}"),
        (r"^['_,\-:;]", ""),
        (r"['_,\-:+]$", ""),
        (r"^\.\S+$", ""),
    ])
});

static URLS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let names = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)";
    let rule = |scheme: &str| format!(r"\b((?:{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])|{names}))");
    rules(&[(rule("https?").as_str(), ""), (rule("www").as_str(), "")])
});

static TAGS: LazyLock<Vec<Rule>> = LazyLock::new(|| rules(&[(r"</?[a-zA-Z!][^<>]*>", "")]));

static JOINTS: LazyLock<Vec<Rule>> = LazyLock::new(|| rules(&[(r"[\-_]", " ")]));

/// A pattern that does not compile is left out; a test counts them.
fn rules(patterns: &[(&str, &'static str)]) -> Vec<Rule> {
    patterns.iter().filter_map(|(pattern, by)| Some((Regex::new(pattern).ok()?, *by))).collect()
}

/// `caption` cleaned: twice, as the original does.
pub(crate) fn clean(caption: &str) -> String {
    let (cleaned, left_out) = Cleaner::twice(caption);
    for (rule, why) in left_out {
        tracing::warn!(%why, rule, "a rule of the cleaning of captions is left out");
    }
    cleaned
}

/// Applies the rules and keeps account of those that gave up.
#[derive(Debug, Default)]
struct Cleaner {
    /// The patterns that were left out, and why.
    left_out: Vec<(&'static str, fancy_regex::Error)>,
}

impl Cleaner {
    /// A cleaned caption, and the patterns that were left out, once for each time.
    fn twice(caption: &str) -> (String, Vec<(&'static str, fancy_regex::Error)>) {
        let mut cleaner = Self::default();
        let once = cleaner.once(caption);
        (cleaner.once(&once), cleaner.left_out)
    }

    fn once(&mut self, caption: &str) -> String {
        let text = unquoted(caption).trim().to_lowercase().replace("<person>", "person");
        let text = self.apply(&URLS, text);
        let text = entities(&self.apply(&TAGS, text));
        let mut text = self.apply(&BEFORE, text);
        // this-is-my-cute-cat
        if text.chars().filter(|c| matches!(c, '-' | '_')).count() > 3 {
            text = self.apply(&JOINTS, text);
        }
        let text = entities(&entities(&text));
        self.apply(&AFTER, text).trim().to_owned()
    }

    fn apply(&mut self, rules: &'static [Rule], text: String) -> String {
        rules.iter().fold(text, |text, (pattern, by)| match pattern.try_replacen(&text, 0, *by) {
            Ok(replaced) => replaced.into_owned(),
            // A pattern that looks ahead gives up on a text that leaves it too many ways; captions are not like that.
            Err(why) => {
                self.left_out.push((pattern.as_str(), why));
                text
            }
        })
    }
}

/// Escapes of addresses resolved: `+` is a space, `%41` an A.
fn unquoted(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits
            .filter(|digits| byte == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How far behind `&` an entity may end: `#x0010ffff;` is the longest that makes sense. Without a bound the end would be
/// looked for through the whole text at every `&`.
const ENTITY: usize = 12;

/// The common entities of HTML resolved once.
fn entities(text: &str) -> String {
    const NAMED: [(&str, char); 12] = [
        ("amp", '&'),
        ("lt", '<'),
        ("gt", '>'),
        ("quot", '"'),
        ("apos", '\''),
        ("nbsp", '\u{a0}'),
        ("copy", '©'),
        ("reg", '®'),
        ("trade", '™'),
        ("hellip", '…'),
        ("mdash", '—'),
        ("ndash", '–'),
    ];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let end = after.char_indices().take(ENTITY).find(|(_, c)| *c == ';');
        let entity = end.and_then(|(end, _)| after.split_at_checked(end)).and_then(|(name, tail)| {
            let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, c)| *c);
            let number = || match name.strip_prefix('#')? {
                hex if hex.starts_with('x') => u32::from_str_radix(&hex[1..], 16).ok(),
                decimal => decimal.parse().ok(),
            };
            Some((named.or_else(|| number().and_then(char::from_u32))?, tail.strip_prefix(';')?))
        });
        match entity {
            Some((c, tail)) => {
                out.push(c);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `captions.json` holds pairs that diffusers made.
    #[test]
    fn captions_are_cleaned_as_diffusers_does() {
        let text = include_str!("../../ediffi-core/tests/fixtures/deepfloyd/captions.json");
        let pairs: Vec<(String, String)> = serde_json::from_str(text).unwrap();
        assert!(pairs.len() > 40);
        for (caption, cleaned) in pairs {
            assert_eq!(clean(&caption), cleaned, "{caption:?}");
        }
    }

    /// What no caption looks like is cleaned as far as it goes, and nothing panics.
    #[test]
    fn any_text_is_cleaned() {
        let parts = ["a.", "a-", "a.co@", "\u{0}", "&#x110000;", "%ff%", "<", "\"'", "#1", "x1", " : ", "日本", "é"];
        for part in parts {
            for count in [1, 7, 20_000] {
                let cleaned = clean(&part.repeat(count));
                assert!(cleaned.len() <= 4 * part.len() * count, "{part:?} {count}");
            }
        }
    }

    /// A rule that gives up is told of, and the others are applied all the same.
    #[test]
    fn a_rule_that_gives_up_is_left_out_alone() {
        let caption = format!("{} <b>a photo</b> of a CAT.jpg free shipping", "a.".repeat(20_000));
        let (cleaned, left_out) = Cleaner::twice(&caption);
        assert!(left_out.len() >= 2 && left_out.iter().all(|(rule, _)| rule.contains("(?!@)")), "{left_out:?}");
        assert!(cleaned.ends_with("a. a photo of a"), "{:?}", &cleaned[cleaned.len() - 60..]);
        let (_, left_out) = Cleaner::twice("see https://a.com/b and www.c.org, a photo of a cat");
        assert!(left_out.is_empty(), "{left_out:?}");
    }

    #[test]
    fn entities_end_near_their_beginning() {
        for (text, expected) in [
            ("&amp;&lt;&#x10ffff;&#65;&", "&<\u{10ffff}A&"),
            ("&é; &;amp; &日本語;", "&é; &;amp; &日本語;"),
            ("& a long way to the end;", "& a long way to the end;"),
        ] {
            assert_eq!(entities(text), expected);
        }
        // Takes minutes where every `&` looks through all that follows.
        let many = "&".repeat(1 << 22);
        assert_eq!(entities(&many), many);
    }

    #[test]
    fn every_pattern_compiles() {
        assert_eq!((BEFORE.len(), AFTER.len(), URLS.len(), TAGS.len(), JOINTS.len()), (18, 17, 2, 1, 1));
    }
}

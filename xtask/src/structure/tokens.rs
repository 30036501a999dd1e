//! Rust source as a list of tokens, without comments and tests: enough to see what a file defines and imports.

/// The tokens of a source text: identifiers, numbers, string literals with their quotes, `::`, and other characters
/// one by one. Comments, characters, lifetimes and everything under `#[cfg(test)]` are left out.
pub(crate) fn tokens(source: &str) -> Vec<&str> {
    without_tests(&scan(source))
}

/// Whether a token can be a name.
pub(crate) fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The index after the bracket that closes the one at `open`; the end if none does.
pub(crate) fn after_group(tokens: &[&str], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, &token) in tokens.iter().enumerate().skip(open) {
        match token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// The index after the item at `start`: after its `;`, or after its braces.
pub(crate) fn after_item(tokens: &[&str], start: usize) -> usize {
    // A constant's value may hold braces; it ends with its semicolon.
    let is_value = tokens[start..].iter().find(|&&token| is_name(token) && token != "pub").is_some_and(|&word| {
        matches!(word, "use" | "static" | "type" | "let") || (word == "const" && !is_const_function(&tokens[start..]))
    });
    let mut index = start;
    while let Some(&token) = tokens.get(index) {
        match token {
            ";" => return index + 1,
            "{" if !is_value => return after_group(tokens, index),
            "(" | "[" | "{" => index = after_group(tokens, index),
            ")" | "]" | "}" => return index,
            _ => index += 1,
        }
    }
    index
}

fn is_const_function(tokens: &[&str]) -> bool {
    let after = tokens.iter().skip_while(|&&token| token != "const").nth(1);
    after.is_some_and(|&word| matches!(word, "fn" | "unsafe" | "async" | "extern"))
}

fn scan(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest) {
            length
        } else if first == '\'' {
            character_or_lifetime(rest)
        } else if first.is_alphanumeric() || first == '_' {
            word(rest)
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        let skipped = first.is_whitespace() || first == '\'' || token.starts_with("//") || token.starts_with("/*");
        if !skipped {
            tokens.push(token.strip_prefix("r#").filter(|name| is_name(name)).unwrap_or(token));
        }
        rest = after;
    }
    tokens
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(found) = text[at..].find(['/', '*']) {
        at += found;
        let step = match text.get(at..at + 2) {
            Some("/*") => {
                depth += 1;
                2
            }
            Some("*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the string literal that the text starts with; also that of a raw name such as `r#type`.
fn string(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'b' | 'c' | 'r')).filter(|&length| length <= 2)?;
    let (letters, rest) = text.split_at(prefix);
    if letters.ends_with('r') {
        let hashes = rest.find(|c: char| c != '#')?;
        let inside = rest[hashes..].strip_prefix('"');
        return match inside {
            None if hashes == 1 && is_name(&rest[1..]) => Some(prefix + 1 + word(&rest[1..])),
            None => None,
            Some(inside) => {
                let end = format!("\"{}", "#".repeat(hashes));
                let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
                Some(prefix + hashes + 1 + length)
            }
        };
    }
    let inside = rest.strip_prefix('"')?;
    let mut escaped = false;
    let end = inside.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(prefix + 1 + end.map_or(inside.len(), |at| at + 1))
}

/// The length of `'a'`, `'\n'` or `'lifetime`.
fn character_or_lifetime(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            let from = escaped + 1;
            text[from..].find('\'').map_or(text.len(), |at| from + at + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1 + word(&text[1..]),
    }
}

/// Leaves out what stands under an attribute `#[cfg(test)]`: an item, or else a field, variant or statement.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while let Some(&token) = tokens.get(index) {
        if token == "#" && tokens.get(index + 1) == Some(&"[") {
            let end = after_group(tokens, index + 1);
            if is_test(&tokens[index..end]) {
                index = after_attributed(tokens, end);
                continue;
            }
            kept.extend(&tokens[index..end]);
            index = end;
            continue;
        }
        kept.push(token);
        index += 1;
    }
    kept
}

fn is_test(attribute: &[&str]) -> bool {
    matches!(attribute, ["#", "[", "cfg", "(", "test", ")", "]"])
        || matches!(attribute, ["#", "[", "cfg", "(", "all", "(", inside @ .., ")", ")", "]"] if inside.contains(&"test"))
}

fn after_attributed(tokens: &[&str], mut start: usize) -> usize {
    while tokens.get(start) == Some(&"#") {
        start = after_group(tokens, start + 1);
    }
    const ITEMS: [&str; 14] = [
        "mod", "fn", "use", "impl", "struct", "enum", "union", "const", "static", "type", "trait", "unsafe", "async",
        "extern",
    ];
    let mut words = tokens[start..].iter().copied().enumerate();
    let first = words.find(|&(_, token)| token != "pub" && token != "(" && token != "crate" && token != ")");
    if first.is_some_and(|(_, word)| ITEMS.contains(&word) || word == "macro_rules") {
        return after_item(tokens, start);
    }
    let mut index = start;
    while let Some(&token) = tokens.get(index) {
        match token {
            "," | ";" => return index + 1,
            ")" | "]" | "}" => return index,
            "(" | "[" | "{" => index = after_group(tokens, index),
            _ => index += 1,
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(source: &str) -> String {
        tokens(source).join(" ")
    }

    #[test]
    fn comments_characters_and_lifetimes_are_left_out() {
        assert_eq!(joined("a // use b;\n/* c /* d */ e */ f"), "a f");
        assert_eq!(joined(r"x('a', '\'', '\u{41}', '{') 'b: &'static T"), "x ( , , , ) : & T");
    }

    #[test]
    fn strings_are_one_token() {
        assert_eq!(tokens(r#"f("use a; \" }", b"x")"#), ["f", "(", r#""use a; \" }""#, ",", "b\"x\"", ")"]);
        assert_eq!(tokens("r#\"a \" b\"# r#type br\"c\" r"), ["r#\"a \" b\"#", "type", "br\"c\"", "r"]);
    }

    #[test]
    fn paths_keep_their_colons() {
        assert_eq!(joined("use a::{b, c::d}; let x: y = 1.5e3;"), "use a :: { b , c :: d } ; let x : y = 1 . 5e3 ;");
    }

    #[test]
    fn tests_are_left_out_wherever_they_stand() {
        assert_eq!(joined("#[cfg(test)] mod tests { use a; } b"), "b");
        assert_eq!(joined("#[cfg(test)] #[path = \"x\"] pub(crate) mod tests; b"), "b");
        assert_eq!(joined("#[cfg(all(test, unix))] use a::{b, c}; d"), "d");
        assert_eq!(
            joined("impl A { #[cfg(test)] fn b<T, U>(c: T) -> [u8; 2] { d } fn e() {} }"),
            "impl A { fn e ( ) { } }"
        );
        assert_eq!(joined("enum A { #[cfg(test)] B(C, D), E }"), "enum A { E }");
        assert_eq!(joined("#[cfg(test)] const A: [B; 2] = [B { c: 1 }; 2]; d"), "d");
    }

    #[test]
    fn what_is_not_for_tests_stays() {
        for source in ["#[cfg(not(test))] use a;", "#[cfg(unix)] mod b;", "#[test] fn c() {}"] {
            assert_eq!(joined(source), tokens_spaced(source), "{source}");
        }
    }

    fn tokens_spaced(source: &str) -> String {
        scan(source).join(" ")
    }
}
